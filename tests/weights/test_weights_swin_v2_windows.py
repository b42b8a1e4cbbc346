"""Windows of Swin V2 that no weight tells: they are read from the tables that some files store."""

import pytest
import torch

from vitrail.weights.from_checkpoint import from_checkpoint

timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
SMALL = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 8), "num_classes": 5}
TABLES = ("relative_coords_table", "relative_position_index", "attn_mask")


def drawn(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def apart(ours, theirs, size: int) -> float:
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        a, b = ours.eval()(images), theirs(images)
    return ((a - b).abs().max() / b.abs().max()).item()


def stored(model, official: bool) -> dict[str, torch.Tensor]:
    """Return a state dict with the tables, as older versions of timm and the authors write it."""
    tensors = dict(model.state_dict()) | {key: value for key, value in model.named_buffers() if key.endswith(TABLES)}
    if not official:
        return tensors
    moved = {}
    for key, value in tensors.items():
        parts = key.split(".")
        if "downsample" in parts:  # the authors merge at the end of a stage
            parts[1] = str(int(parts[1]) - 1)
        moved[".".join(parts).replace("head.fc", "head")] = value
    return moved


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize(
    ("name", "more", "window", "pretrained"),
    [
        ("swinv2_tiny_window16_256", {}, 16, ()),
        ("swinv2_tiny_window8_256", {"img_size": 192, "window_size": 12}, 12, ()),
        ("swinv2_tiny_window8_256", {"img_size": 64}, 8, ()),
        ("swinv2_base_window12to16_192to256", {}, 16, (12, 12, 12, 6)),
        ("swinv2_base_window12to24_192to384", {}, 24, (12, 12, 12, 6)),
    ],
)
def test_stored_tables_tell_windows_and_size(official, name, more, window, pretrained):
    model = drawn(timm.create_model(name, **SMALL, **more))
    size = model.patch_embed.img_size[0]
    found = from_checkpoint(stored(model, official))
    assert found.format == ("official" if official else "timm")
    assert found.model.config.window_size == window and found.model.config.pretrained_windows == pretrained
    assert found.model.preprocess.size == size
    assert apart(found.model, model, size) < 1e-5


def test_stored_tables_choose_the_variant():
    model = drawn(timm.create_model("swinv2_tiny_window16_256", num_classes=5))
    found = from_checkpoint(stored(model, official=True))
    assert found.model.variant == "swinv2_tiny_window16_256" and not found.also
    assert apart(found.model, model, 256) < 1e-5


@pytest.mark.parametrize(("window", "size"), [(4, 64), (7, 112), (16, 96)])
def test_windows_of_torchvision(window, size):
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    parts = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    model = drawn(SwinTransformer([4, 4], 24, [2, 2], [2, 4], [window, window], num_classes=5, **parts))
    found = from_checkpoint(model.state_dict())
    assert found.format == "torchvision" and found.model.config.window_size == window
    assert apart(found.model, model, size) < 1e-5
