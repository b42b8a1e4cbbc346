"""Models of custom sizes go to any library's names and back: the same weights, the same outputs."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_peers import PAIRS, difference, logits

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.models import catalogue, create_model, family_of, make_config
from vitrail.weights.convert import convert
from vitrail.weights.detect import looks_like
from vitrail.weights.folder import load_model, save_model
from vitrail.weights.formats import FORMATS, write_as
from vitrail.weights.from_checkpoint import from_checkpoint
from vitrail.weights.infer_config import differing_fields

SWIN = ("swin_tiny_patch4_window7_224", dict(dim=24, depths=(2, 1), num_heads=(2, 4), window_size=4, patch_size=2))
PVT = dict(dims=(8, 20), depths=(1, 2), num_heads=(1, 2), sr_ratios=(3, 1), mlp_ratios=(2.0, 3.0))
# Custom sizes for each family, and the fields that no shape and no key determines.
OWN = {
    "vit": ("vit_tiny_patch16_224", dict(dim=20, depth=2, num_heads=5, patch_size=8, mlp_ratio=1.7, image_size=40)),
    "vit-heads": ("vit_tiny_patch16_224", dict(depth=1, num_heads=6, image_size=48)),
    "deit": ("deit_tiny_distilled_patch16_224", dict(dim=24, depth=1, num_heads=2, patch_size=8, image_size=24)),
    "deit-plain": ("deit_small_patch16_224", dict(dim=24, depth=2, num_heads=4, patch_size=8, image_size=24)),
    "swin": (SWIN[0], {**SWIN[1], "image_size": 36, "mlp_ratio": 2.3, "in_channels": 1}),
    "swin-deep": ("swin_base_patch4_window12_384", dict(dim=16, depths=(1, 1, 3), num_heads=(1, 2, 2), image_size=64)),
    "swin_v2": (
        "swinv2_tiny_window8_256",
        dict(dim=16, depths=(2, 1), num_heads=(1, 2), window_size=4, mlp_ratio=2.3, image_size=32),
    ),
    "nest": ("nest_tiny", dict(dims=(8, 20), depths=(1, 2), num_heads=(1, 2), mlp_ratio=2.3, image_size=48)),
    "pvt": (
        "pvt_small",
        dict(
            dims=(8, 12, 16, 20),
            depths=(1, 1, 2, 1),
            num_heads=(1, 2, 2, 2),
            sr_ratios=(3, 2, 1, 1),
            mlp_ratios=(2.0, 3.0, 2.0, 3.0),
            reduction_eps=1e-6,
            image_size=48,
            in_channels=1,
        ),
    ),
    "pvt_v2": ("pvt_v2_b1", {**PVT, "image_size": 48, "reduction_eps": 1e-6}),
    "pvt_v2-linear": ("pvt_v2_b2_li", {**PVT, "sr_ratios": (1, 1), "image_size": 48, "reduction_eps": 1e-6}),
    "twins": ("twins_svt_small", {**PVT, "depths": (3, 2), "window_size": 7, "image_size": 48}),
    "cct": ("cct_7_3x1_32", dict(dim=24, depth=2, num_heads=2, kernel_size=5, conv_layers=2, mlp_ratio=1.5)),
    "cvt": ("cvt_7_4_32", dict(dim=24, depth=2, num_heads=2, kernel_size=8, image_size=40)),
    "nat": ("nat_tiny", dict(dim=16, depths=(1, 2), num_heads=(1, 2), kernel_size=5, layer_scale=1e-5, image_size=44)),
    "dinat": ("dinat_tiny", dict(dim=16, depths=(2, 1), num_heads=(1, 2), dilations=(3, 1), image_size=44)),
    "dinat_s": ("dinat_s_tiny", dict(dim=16, depths=(2, 1), num_heads=(1, 2), dilations=(2, 1), kernel_size=3)),
    "mixer": ("mixer_s16_224", dict(dim=40, depth=2, patch_size=8, token_ratio=0.7, mlp_ratio=0.3, image_size=24)),
    "poolformer": ("poolformer_s24", dict(dims=(8, 20, 24), depths=(1, 2, 1), mlp_ratio=3.3, image_size=44)),
    "bit": ("resnetv2_101x1_bit", dict(depths=(2, 1), image_size=44)),
    "hybrid": ("vit_tiny_r_s16_p8_224", dict(dim=24, depth=2, num_heads=2, patch_size=2, image_size=64)),
}
UNTOLD = ("num_heads", "dilations", "image_size", "window_size")
CHOICES = (
    "edge",
    "pooling",
    "padding",
    "reduction_eps",
)  # in which libraries differ: their names are taken to mean their answers
LABELS = ("ant", "bee", "cat")
every_own = pytest.mark.parametrize("name", OWN)


def own_model(name: str):
    """Build a model of own sizes, with every weight drawn so that nothing agrees because it is zero or one."""
    variant, fields = OWN[name]
    model = create_model(variant, num_classes=3, **fields).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.labels = LABELS
    return model


def libraries(name: str) -> list[str]:
    """Return the libraries that take this model."""
    family = family_of(OWN[name][0])
    found = {one.name for one in FORMATS if one.writes and family in one.families}
    return sorted(found - {"torchvision"} if name == "deit" else found)  # torchvision has no distillation token


def assert_same(got, model) -> None:
    """Compare every bit of the weights, and the outputs."""
    mine, theirs = model.state_dict(), got.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(theirs[key], mine[key]) for key in mine)
    size = model.preprocess.size
    images = torch.randn(1, model.config.in_channels, size, size)
    assert torch.equal(logits(got.eval(), images), logits(model, images))


@pytest.mark.parametrize(("name", "library"), [(name, library) for name in OWN for library in libraries(name)])
def test_an_own_safetensors_file_rebuilds_the_model(name, library, tmp_path):
    model = own_model(name)
    save_model(model, tmp_path / "ours")
    convert(tmp_path / "ours", library, tmp_path / "there.safetensors")
    convert(tmp_path / "there.safetensors", "vitrail", tmp_path / "back")
    back = load_model(tmp_path / "back")
    assert back.config == model.config and back.variant == model.variant
    assert back.labels == LABELS and back.preprocess == model.preprocess
    assert_same(back, model)


@pytest.mark.parametrize(("name", "library"), [(name, library) for name in OWN for library in libraries(name)])
def test_bare_tensors_need_only_fields_without_a_shape(name, library, tmp_path):
    """Such as another program writes them."""
    model = own_model(name)
    variant, fields = OWN[name]
    bare = write_as(library, family_of(variant), model.state_dict(), model.config)
    own = {field: getattr(model.config, field) for field in CHOICES if hasattr(model.config, field)}
    found = from_checkpoint(bare, variant, **own, **{field: fields[field] for field in UNTOLD if field in fields})
    assert found.format == library or library == "official"  # DeiT's authors have timm's names
    assert_same(found.model, model)


@pytest.mark.parametrize(("name", "size"), [("poolformer-timm", (64, 64)), ("swin-timm", (60, 116))])
def test_a_file_with_timm_names_equals_timm(name, size):
    """Padded maps of a Swin, and the order of a PoolFormer's last norm and mean, are timm's own."""
    pair = PAIRS[name]
    peer, heads = pair.peer(), {field: pair.overrides[field] for field in UNTOLD if field in pair.overrides}
    found = from_checkpoint(peer.state_dict(), pair.variant, **heads)
    if name == "swin-timm":
        peer.set_input_size(img_size=size, window_size=7)
    images = torch.randn(2, 3, *size)
    assert difference(logits(found.model.eval(), images), logits(peer, images)) <= 1e-5
    official = from_checkpoint(
        peer.state_dict(), pair.variant, **heads, **{found_in(found.model): "official"}
    ).model.eval()
    assert difference(logits(official, images), logits(peer, images)) > 1e-4


def test_timm_config_overrides_the_variant(tmp_path):
    """Heads show in no shape: six instead of three, of a width that the variant has too, change the output."""
    import timm

    args = {"num_heads": 6, "depth": 1, "img_size": 64}
    peer = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=3, **args).eval()
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    said = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": args}
    (tmp_path / "config.json").write_text(json.dumps(said))
    found, images = from_checkpoint(tmp_path).model.eval(), torch.randn(2, 3, 64, 64)
    assert difference(logits(found, images), logits(peer, images)) <= 1e-5


def test_a_name_of_timm_outside_the_catalogue_is_refused_though_its_tensors_fit(tmp_path, capsys):
    """Blurred strides have no tensors: a ResNet with them loaded as one without, and its logits differed."""
    import timm

    peer = timm.create_model("resnetblur50", layers=(1, 1, 1, 1), num_classes=3).eval()
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetblur50.bt_in1k", "num_classes": 3}))
    with pytest.raises(VitrailError, match="says timm's resnetblur50, which is not in the catalogue"):
        from_checkpoint(tmp_path)
    assert main(["convert", str(tmp_path), "--out", str(tmp_path / "ours")]) == 2
    assert "--model NAME" in capsys.readouterr().err
    given, images = from_checkpoint(tmp_path, "resnet50").model.eval(), torch.randn(1, 3, 64, 64)
    assert difference(logits(given, images), logits(peer, images)) > 1e-4  # the reason for the refusal

    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet26", "num_classes": 3}))
    peer = timm.create_model("resnet26", num_classes=3).eval()
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    found = from_checkpoint(tmp_path).model.eval()
    assert difference(logits(found, images), logits(peer, images)) <= 1e-5


def found_in(model) -> str:
    """Name the choice that this family has."""
    return next(field for field in CHOICES if hasattr(model.config, field))


@pytest.mark.parametrize("name", [name for name in OWN if "huggingface" in libraries(name)])
def test_a_folder_for_transformers_comes_back_whole(name, tmp_path):
    """Its config.json, its processor and its class names are read, with no word of ours."""
    model = own_model(name)
    save_model(model, tmp_path / "ours")
    convert(tmp_path / "ours", "huggingface", tmp_path / "there")
    convert(tmp_path / "there", "vitrail", tmp_path / "back")
    back = load_model(tmp_path / "back")
    assert back.variant == model.variant and back.labels == LABELS and back.preprocess == model.preprocess
    assert_same(back, model)

    config = json.loads((tmp_path / "there" / "config.json").read_bytes())
    del config["variant"]
    (tmp_path / "there" / "config.json").write_text(json.dumps(config))
    foreign = from_checkpoint(tmp_path / "there")
    assert "no published variant" in " ".join(foreign.notes)
    assert_same(foreign.model, model)


@pytest.mark.parametrize("name", ["vit", "swin", "poolformer"])
def test_a_folder_that_transformers_wrote_is_read(name, tmp_path):
    from transformers import AutoModelForImageClassification

    model = own_model(name)
    save_model(model, tmp_path / "ours")
    convert(tmp_path / "ours", "huggingface", tmp_path / "there")
    AutoModelForImageClassification.from_pretrained(tmp_path / "there").save_pretrained(tmp_path / "theirs")
    back = from_checkpoint(tmp_path / "theirs").model
    assert back.labels == LABELS
    assert_same(back, model)


@every_own
def test_fields_are_inferred_from_shapes(name):
    variant, fields = OWN[name]
    model = own_model(name)
    found = differing_fields(model.state_dict(), make_config(variant))
    again = create_model(variant, **{**found, **{field: fields[field] for field in UNTOLD if field in fields}})
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


def refusal(*arguments, **options) -> str:
    with pytest.raises(VitrailError) as raised:
        from_checkpoint(*arguments, **options)
    assert len(str(raised.value).splitlines()) <= 6
    return str(raised.value)


def test_fields_that_shapes_do_not_determine_are_required_by_name(tmp_path, capsys):
    model = own_model("vit")
    path = tmp_path / "bare.pth"
    torch.save(write_as("timm", "vit", model.state_dict(), model.config), path)
    assert "--model NAME" in refusal(path)
    said = refusal(path, "vit_tiny_patch16_224")
    assert "do not say num_heads" in said
    (line,) = [line for line in said.splitlines() if "vitrail convert" in line]
    command = (
        line.partition("vitrail ")[2].partition(",")[0].replace("=...", "=5").replace("FOLDER", str(tmp_path / "a"))
    )
    assert main(command.split()) == 0  # the command of the message works
    assert_same(load_model(tmp_path / "a"), model)
    assert main(["convert", str(path), "--model", "vit_tiny_patch16_224", "--out", str(tmp_path / "b")]) == 2
    assert "num_heads" in capsys.readouterr().err
    dinat = own_model("dinat")
    three = create_model("dinat_tiny", dim=16, depths=(1, 1, 1), num_heads=(1, 2, 2), dilations=(1, 1, 1))
    assert from_checkpoint(dinat.state_dict(), "dinat_tiny", dilations=(3, 1)).model.config.dilations == (3, 1)
    assert "dilations" in refusal(three.state_dict(), "dinat_tiny")


def test_a_config_that_contradicts_the_architecture_is_refused(tmp_path):
    save_model(own_model("vit"), tmp_path / "ours")
    convert(tmp_path / "ours", "huggingface", tmp_path / "there")
    path = tmp_path / "there" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "hidden_act": "relu"}))
    assert "hidden_act=relu" in refusal(tmp_path / "there")


def test_a_transformers_bit_with_other_padding_is_refused(tmp_path):
    model = create_model("resnetv2_50x1_bit", dim=32, depths=(1, 1), num_classes=3)
    save_model(model, tmp_path / "ours")
    convert(tmp_path / "ours", "huggingface", tmp_path / "there")
    path = tmp_path / "there" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "global_padding": "SAME"}))
    assert "global_padding=SAME" in refusal(tmp_path / "there")


def test_fields_that_the_tensors_contradict_are_refused():
    state = own_model("swin").state_dict()
    message = refusal(state, SWIN[0], window_size=7)
    assert "with window_size=7: backbone" in message and "Nothing is resized here. Leave out the fields" in message
    assert "does not fit" in refusal(state, SWIN[0], depths=(1, 1))
    assert "looks like vitrail's" not in refusal(state, SWIN[0], edge="nowhere")


def test_a_size_that_is_not_recovered_is_not_blamed_on_fields_that_nobody_gave(monkeypatch):
    monkeypatch.setattr("vitrail.weights.from_checkpoint.differing_fields", lambda ours, config: {})
    message = refusal(create_model("vit_tiny_patch16_224", num_classes=7).state_dict(), "vit_tiny_patch16_224")
    assert "head.linear.weight, 7 classes in the checkpoint, 1,000 in the model" in message
    assert "Give the field of this size" in message and "given" not in message and "Leave out" not in message


def _families_with_classes() -> dict[str, str]:
    """Return the first variant of each family whose config has a number of classes."""
    first: dict[str, str] = {}
    for name in catalogue():
        if hasattr(make_config(name), "num_classes"):
            first.setdefault(family_of(name), name)
    return first


@pytest.mark.parametrize("name", _families_with_classes().values())
def test_the_number_of_classes_is_recovered_from_every_head(name):
    config = make_config(name)
    head = {"head": "classes"} if hasattr(config, "head") else {}
    with torch.device("meta"):
        state = create_model(name, num_classes=37, **head).state_dict()
    assert differing_fields(state, config) == {"num_classes": 37, **head}


@pytest.mark.parametrize("name", ["faster_rcnn_resnet50", "mask_rcnn_resnet50", "fpn_segmenter", "all_minilm_l6_v2"])
def test_the_head_tells_variants_of_one_trunk_apart(name):
    with torch.device("meta"):
        state = create_model(name).state_dict()
    assert looks_like(state)[0] == name


def test_a_swin_with_other_padding_is_not_exported_to_transformers(tmp_path):
    """On padded maps it would answer otherwise there; on maps that windows fit it is the same model."""
    for size, fits in ((32, True), (36, False)):
        model = create_model(SWIN[0], **SWIN[1], edge="timm", image_size=size)
        save_model(model, tmp_path / "ours")
        if fits:
            convert(tmp_path / "ours", "huggingface", tmp_path / "there")
        else:
            with pytest.raises(VitrailError, match="edge=timm"):
                convert(tmp_path / "ours", "huggingface", tmp_path / "there")


def test_a_file_next_to_a_model_folder_is_read_alone(tmp_path):
    one, other = own_model("swin"), own_model("swin")
    save_model(one, tmp_path / "ours")
    torch.save(other.state_dict(), tmp_path / "ours" / "other.pth")
    assert_same(from_checkpoint(tmp_path / "ours" / "other.pth").model, other)


def test_own_metadata_is_ignored_by_other_libraries(tmp_path):
    save_model(own_model("swin"), tmp_path / "ours")
    convert(tmp_path / "ours", "timm", tmp_path / "there.safetensors")
    tensors = load_file(tmp_path / "there.safetensors")
    save_file(tensors, tmp_path / "theirs.safetensors")
    found = from_checkpoint(
        tmp_path / "theirs.safetensors"
    )  # a Swin's shapes tell its heads, and no other family has its names
    assert found.model.config.num_heads == (2, 4) and found.model.labels is None


def test_predict_loads_a_bare_checkpoint(tmp_path, capsys):
    """Its own classes and sizes, not the variant's with a head of random numbers."""
    from PIL import Image

    model = own_model("vit")
    save_model(model, tmp_path / "ours")
    convert(tmp_path / "ours", "huggingface", tmp_path / "there")
    Image.new("RGB", (50, 40), (200, 10, 90)).save(tmp_path / "p.png")
    answers = []
    for source in (["vit_tiny_patch16_224", "--weights", str(tmp_path / "there")], [str(tmp_path / "ours")]):
        assert main(["predict", *source, str(tmp_path / "p.png"), "--json", "--precision", "fp32"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1] and answers[0]["label"] in LABELS


def test_predict_refuses_weights_without_a_head(tmp_path, capsys):
    model = create_model("vit_tiny_patch16_224", num_classes=0, depth=1)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    (tmp_path / "p.png").write_bytes(b"")
    assert main(["predict", "vit_tiny_patch16_224", "--weights", str(tmp_path / "bare.pth"), str(tmp_path)]) == 2
    assert "has no head" in capsys.readouterr().err
