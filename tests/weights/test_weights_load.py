"""Loading into a model of other sizes, and the reason when it cannot be."""

import shutil

import pytest
import torch
from small_peers import PAIRS, SWIN, VIT, logits

from vitrail.errors import DataError, VitrailError
from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.parts.positions import resize_position
from vitrail.weights.adapt import change_channels, resize_patch, resize_relative
from vitrail.weights.folder import save_model
from vitrail.weights.load import load_weights


def vit(**overrides):
    return create_model("vit_tiny_patch16_224", **{**VIT, "image_size": 32, **overrides}).eval()


def swin(**overrides):
    return create_model("swin_tiny_patch4_window7_224", **{**SWIN, "image_size": 56, **overrides}).eval()


def equal(one, other) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


# Sizes that are adapted.


def test_other_classes_zero_the_head_with_a_message(caplog):
    source, target = vit(), vit(num_classes=7)
    report = load_weights(target, source.state_dict())
    assert not target.head.linear.weight.any() and not target.head.linear.bias.any()
    assert torch.equal(target(torch.randn(1, 3, 32, 32)), torch.zeros(1, 7))  # the first loss is log K
    assert report.kept["head.linear.weight"] == "5 classes in the checkpoint, 7 in the model"
    assert "initialised with zeros: head.linear.weight, head.linear.bias" in caplog.text
    assert torch.equal(target.backbone.norm.weight, source.backbone.norm.weight)


def test_a_model_without_head_leaves_theirs_out():
    report = load_weights(vit(num_classes=0), vit().state_dict())
    assert report.adapted["head.linear.weight"] == "left out: the model has no head"


def test_grey_images_equal_three_equal_channels():
    colour, grey = vit(), vit(in_channels=1)
    load_weights(grey, colour.state_dict())
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(logits(grey, images), logits(colour, images.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_more_channels_keep_the_output_of_a_constant_image(channels):
    weight = torch.randn(6, 3, 2, 2)
    flat = weight.mean(1)  # the answer where every channel is equal, by channel
    new = change_channels(weight.mean(1, keepdim=True).expand(-1, 3, -1, -1), channels)
    torch.testing.assert_close(new.sum(1), flat * 3)


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_channels_change_as_in_timm(channels):
    from timm.models._manipulate import adapt_input_conv

    weight = torch.randn(6, 3, 2, 2)
    torch.testing.assert_close(change_channels(weight, channels), adapt_input_conv(channels, weight))


def test_position_tables_are_resized_as_in_timm_and_the_class_token_stays():
    from timm.layers import resample_abs_pos_embed

    source, target = vit(), vit(image_size=56)
    report = load_weights(target, source.state_dict())
    key = "backbone.embedding.steps.1.table"
    expected = resample_abs_pos_embed(source.state_dict()[key], (7, 7), num_prefix_tokens=1)
    torch.testing.assert_close(target.state_dict()[key], expected)
    assert torch.equal(target.state_dict()[key][:, 0], source.state_dict()[key][:, 0])
    assert report.adapted[key] == "resized, bicubic: (1, 17, 32) -> (1, 50, 32)"


def test_resizing_at_load_equals_resizing_at_run_time():
    source = vit()
    target = vit(image_size=56)
    load_weights(target, source.state_dict())
    images = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(logits(target, images), logits(source, images))
    table = torch.randn(1, 17, 8)
    assert torch.equal(resize_position(table, Grid(4, 4, 1), Grid(4, 4, 1)), table)


def test_another_window_resizes_the_bias_as_the_authors_do():
    """Official rule: bicubic without antialias, corners not aligned, over the square of offsets."""
    source, target = swin(), swin(window_size=4, image_size=32)
    report = load_weights(target, source.state_dict())
    key = "backbone.stages.0.blocks.1.token_mixer.position.table"
    square = source.state_dict()[key].permute(1, 0).view(1, 2, 13, 13)
    official = torch.nn.functional.interpolate(square, size=(7, 7), mode="bicubic").view(2, 49).permute(1, 0)
    assert torch.equal(target.state_dict()[key], official)
    assert report.adapted[key].startswith("resized, bicubic: (169, 2) -> (49, 2)")
    assert torch.equal(resize_relative(official, (4, 4)), official)


def test_patches_resize_as_in_flexivit():
    from timm.layers import resample_patch_embed

    weight = torch.randn(6, 3, 8, 8)
    torch.testing.assert_close(resize_patch(weight, 12), resample_patch_embed(weight, [12, 12]), atol=1e-5, rtol=1e-4)


def test_a_resized_patch_gives_the_token_of_the_patch():
    """Purpose of the pseudo-inverse: enlarge image and patch alike, and the tokens stay."""
    patch, weight = torch.randn(1, 1, 8, 8), torch.randn(6, 1, 8, 8)
    larger = torch.nn.functional.interpolate(patch, size=(16, 16), mode="bicubic", antialias=True)
    before, after = (weight * patch).sum((1, 2, 3)), (resize_patch(weight, 16) * larger).sum((1, 2, 3))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_another_patch_size_is_loaded():
    report = load_weights(vit(patch_size=4), vit().state_dict())
    assert report.adapted["backbone.embedding.patches.proj.weight"].startswith("patches resized: (32, 3, 8, 8)")


def test_half_precision_is_loaded_into_full():
    source, target = vit(), vit()
    load_weights(target, {key: value.half() for key, value in source.state_dict().items()})
    assert target.head.linear.weight.dtype == torch.float32
    torch.testing.assert_close(target.head.linear.weight, source.head.linear.weight, atol=1e-3, rtol=1e-3)


def test_weights_go_in_through_create_model(tmp_path):
    source = vit()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    target = create_model("vit_tiny_patch16_224", weights=tmp_path / "a.pth", **VIT, image_size=32)
    assert equal(target.state_dict(), source.state_dict())


def test_a_model_folder_is_checked_before_it_is_read(tmp_path):
    source = vit()
    folder = save_model(source, tmp_path / "model")
    target = vit()
    assert load_weights(target, folder).format == "vitrail"
    assert equal(target.state_dict(), source.state_dict())
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        load_weights(target, folder)


# Mismatches, and their reasons.


def refusal(model, source, **options) -> str:
    """Return the reason, after checking that it is short and that the model was not touched."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(VitrailError) as raised:
        load_weights(model, source, **options)
    assert equal(model.state_dict(), before)
    message = str(raised.value)
    assert len(message.splitlines()) <= 6, message
    return message


def test_tensors_that_layers_lack_are_those_of_another_architecture():
    """A ResNet V2 with BatchNorm has the keys and shapes of BiT, and running statistics."""
    import timm

    source = timm.create_model("resnetv2_50", num_classes=5).state_dict()
    message = refusal(create_model("resnetv2_50x1_bit", num_classes=5), source)
    assert "another architecture" in message and "running_mean" in message and "strict=False" not in message


def test_another_variant_is_named_with_the_way_to_make_it():
    import timm

    with torch.device("meta"):
        source = timm.create_model("swin_small_patch4_window7_224").state_dict()
    source = {key: torch.empty(value.shape) for key, value in source.items()}
    message = refusal(create_model("vit_tiny_patch16_224"), source)
    assert "It looks like timm's swin_small_patch4_window7_224" in message
    assert "create_model('swin_small_patch4_window7_224'" in message


def test_a_shape_that_differs_is_shown_with_the_one_needed():
    message = refusal(vit(dim=64), vit().state_dict())
    assert "backbone.embedding.patches.proj.weight: (32, 3, 8, 8), needed (64, 3, 8, 8)" in message


def test_a_checkpoint_without_a_head_names_the_remedy():
    source, target = create_model("vit_tiny_patch16_224"), create_model("vit_tiny_patch16_224")
    headless = {key: value for key, value in source.state_dict().items() if not key.startswith("head.")}
    message = refusal(target, headless)
    assert "missing: head.linear.weight, head.linear.bias" in message and "It has no head" in message
    report = load_weights(target, headless, strict=False)
    assert report.missing == ["head.linear.weight", "head.linear.bias"]


def test_unexpected_keys_are_an_error_by_default():
    source = {**vit().state_dict(), "backbone.extra": torch.zeros(1)}
    assert "unexpected: backbone.extra" in refusal(vit(), source)
    assert load_weights(vit(), source, strict=False).unexpected == ["backbone.extra"]


def test_strict_or_not_another_architecture_is_refused():
    refusal(vit(), swin().state_dict(), strict=False)


def test_an_unknown_format_shows_its_keys():
    message = refusal(vit(), {"encoder.layer_one.w": torch.zeros(3, 4)})
    assert "encoder.layer_one.w (3, 4)" in message and "Known:" in message


def test_half_of_a_fused_tensor_is_named():
    from vitrail.weights.formats import write_as

    source = vit()
    theirs = write_as("huggingface", "vit", source.state_dict(), source.config)
    del theirs["vit.encoder.layer.0.attention.attention.key.weight"]
    message = refusal(vit(), theirs)
    assert "missing: backbone.stages.0.blocks.0.token_mixer.qkv.weight" in message
    assert "vit.encoder.layer.0.attention.attention.key.weight" in message


@pytest.mark.parametrize("name", ["vit-timm", "swin-torchvision", "poolformer-huggingface", "bit-timm"])
def test_the_load_report_is_readable(name):
    pair = PAIRS[name]
    report = load_weights(pair.ours(), pair.peer().state_dict())
    assert str(report).startswith(f"state dict: {report.format} weights, ") and report.loaded == len(
        pair.ours().state_dict()
    )


# The real thing.


@pytest.mark.shared
def test_the_trained_vit_predicts_the_classes_of_timm(shared):
    import timm
    from PIL import Image

    ours = create_model("vit_tiny_patch16_224").eval()
    report = load_weights(ours, shared / "weights" / "vit_tiny_patch16_224.pt")
    assert report.format == "timm" and report.loaded == 152 and not report.adapted

    peer = timm.create_model("vit_tiny_patch16_224").eval()
    peer.load_state_dict(torch.load(shared / "weights" / "vit_tiny_patch16_224.pt", weights_only=True))
    protocol = timm.data.resolve_data_config({}, model=peer)
    transform = timm.data.create_transform(**protocol)
    names = sorted((shared / "data" / "imagenet17").glob("*.JPEG"))
    images = torch.stack([transform(Image.open(name).convert("RGB")) for name in names])
    got, expected = logits(ours, images), logits(peer, images)
    assert len(names) == 17
    assert (got - expected).abs().max() / expected.abs().max() <= 1e-5
    assert torch.equal(got.argmax(1), expected.argmax(1))
    assert protocol["mean"] == ours.preprocess.mean and protocol["crop_pct"] == ours.preprocess.crop


def test_the_folder_of_a_run_is_a_source(tmp_path):
    """Its best weights, else the last ones; other commands take such a folder too."""
    model = create_model("vit_tiny_patch16_224", depth=1, dim=24, num_heads=2, image_size=32, num_classes=3)
    for place in ("best", "last"):
        save_model(model, tmp_path / "run" / "weights" / place)
        other = create_model("vit_tiny_patch16_224", depth=1, dim=24, num_heads=2, image_size=32, num_classes=3)
        load_weights(other, tmp_path / "run")
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        shutil.rmtree(tmp_path / "run")
    with pytest.raises(VitrailError, match="holds no checkpoint"):
        (tmp_path / "run" / "weights").mkdir(parents=True)
        load_weights(model, tmp_path / "run")
