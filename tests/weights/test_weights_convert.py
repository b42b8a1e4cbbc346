"""From any library to any other: the command, the chain, and refusals."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.models import create_model, make_config
from vitrail.weights.convert import convert
from vitrail.weights.detect import detect, looks_like
from vitrail.weights.folder import load_model
from vitrail.weights.formats import write_as
from vitrail.weights.infer_config import differing_fields


def read(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    """A ViT-Ti fine-tuned on seven classes of 1-channel images at 160 pixels, as timm would have saved it."""
    torch.manual_seed(0)
    model = create_model("vit_tiny_patch16_224", num_classes=7, in_channels=1, image_size=160)
    path = tmp_path_factory.mktemp("timm") / "vit.safetensors"
    save_file(write_as("timm", "vit", model.state_dict(), model.config), path)
    return path


def test_round_trip_through_every_library(timm_file, tmp_path):
    chain = [
        ("vitrail", "a"),
        ("torchvision", "b.pth"),
        ("official", "c.npz"),
        ("huggingface", "d.bin"),
        ("timm", "e.pt"),
    ]
    source = timm_file
    for to, name in chain:
        done = convert(source, to, tmp_path / name, model="vit_tiny_patch16_224")
        assert done.overrides == {"num_classes": 7, "in_channels": 1, "image_size": 160}
        source = tmp_path / name
    assert equal(read(source), read(timm_file))


def test_a_model_folder_from_a_foreign_file_runs(timm_file, tmp_path, capsys):
    assert main(["convert", str(timm_file), "--out", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().out
    assert "timm weights of vit_tiny_patch16_224, num_classes=7, in_channels=1, image_size=160" in said
    assert re.search("the same tensors fit .*deit_tiny_patch16_224.*; choose with --model", said)
    model = load_model(tmp_path / "model")
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "model").rename(tmp_path / "run" / "weights" / "best")
    assert main(["convert", str(tmp_path / "run"), "--to", "timm", "--out", str(tmp_path / "back.pth")]) == 0
    assert equal(read(tmp_path / "back.pth"), read(timm_file))
    assert model(torch.zeros(1, 1, 160, 160)).shape == (1, 7)
    assert model.command == f"vitrail convert {timm_file} --to vitrail --out {tmp_path / 'model'}"


def test_the_name_in_a_config_breaks_a_tie(timm_file, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(timm_file.read_bytes())
    (tmp_path / "config.json").write_text('{"architecture": "deit_tiny_patch16_224"}')
    assert convert(tmp_path, "timm", tmp_path / "out.pth").model == "deit_tiny_patch16_224"


def refusal(*arguments, **options) -> str:
    with pytest.raises(VitrailError) as raised:
        convert(*arguments, **options)
    return str(raised.value)


def test_invalid_conversions_are_refused_before_writing(timm_file, tmp_path):
    out = tmp_path / "out"
    assert "looks like timm's vit_tiny_patch16_224" in refusal(
        timm_file, "vitrail", out, model="swin_tiny_patch4_window7_224"
    )
    assert "Did you mean: vit_tiny_patch16_224" in refusal(timm_file, "vitrail", out, model="vit_tiny_patch16_225")
    assert "Did you mean: torchvision" in refusal(timm_file, "torchvisoin", tmp_path / "a.pth")
    assert "mmpretrain has no such vit" in refusal(timm_file, "mmpretrain", tmp_path / "a.pth")
    assert "needs an ending" in refusal(timm_file, "timm", out)
    assert "Leave the ending out" in refusal(timm_file, "vitrail", tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())


def test_the_command_has_messages_and_exit_codes(timm_file, tmp_path, capsys):
    (tmp_path / "empty.pth").write_bytes(b"")
    assert main(["convert", str(tmp_path / "empty.pth"), "--out", str(tmp_path / "x")]) == 3
    assert main(["convert", str(tmp_path / "missing.pth"), "--out", str(tmp_path / "x")]) == 2
    assert main(["convert", str(timm_file), "--out", str(tmp_path / "x"), "--to", "timn"]) == 2
    said = capsys.readouterr().err
    assert "empty (0 bytes)" in said and "nothing at" in said and "--to" in said


def test_unknown_sizes_require_the_model_name(tmp_path):
    model = create_model("vit_tiny_patch16_224", dim=24, depth=1, num_heads=1)
    torch.save(model.state_dict(), tmp_path / "odd.pth")
    assert "the sizes of no published variant" in refusal(tmp_path / "odd.pth", "vitrail", tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["swin_base_patch4_window12_384", "swin_small_patch4_window7_224", "poolformer_s36", "vit_base_r50_s16_384"]
)
def test_every_variant_is_recognised_in_every_format(name):
    with torch.device("meta"):
        model = create_model(name)
    for library in ("timm", "official"):
        theirs = write_as(library, type(model.config).__module__.rpartition(".")[2], model.state_dict(), model.config)
        found = detect(theirs)
        assert looks_like(found.mapped.tensors, found.format.families)[0] == name
        assert not differing_fields(found.mapped.tensors, make_config(name))


def test_a_library_with_the_names_of_another_is_written_too(tmp_path):
    """timm's ResNets have torchvision's keys; a file is the same for both."""
    timm = pytest.importorskip("timm")
    model = create_model("resnet50", dim=8, depths=(1, 1, 1, 1), num_classes=5)
    tensors = [write_as(name, "resnet", model.state_dict(), model.config) for name in ("timm", "torchvision")]
    assert equal(*tensors)
    peer = timm.models.resnet.ResNet(timm.models.resnet.Bottleneck, (1, 1, 1, 1), 5, channels=(8, 16, 32, 64))
    shapes = {key: value.shape for key, value in peer.state_dict().items()}
    assert {"conv1.weight", "layer4.0.downsample.1.running_var", "fc.bias"} <= tensors[0].keys() & shapes.keys()
    with pytest.raises(VitrailError, match="official has no such resnet") as error:
        write_as("official", "resnet", model.state_dict(), model.config)
    assert "huggingface, timm, torchvision" in str(error.value)
