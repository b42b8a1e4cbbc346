"""The door: `vitrail.train`, hints for names of other libraries, aliases in config files, install advice."""

import re
from pathlib import Path

import pytest
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.inference.model_loading import find_model
from vitrail.tasks.image_sources import find_images
from vitrail.training.config import TrainConfig
from vitrail.training.config_io import typed

SMALL = {"set": {"dim": 16, "depth": 1, "num_heads": 2}, "imgsz": 16, "batch": 250}


def test_train_returns_a_run(tmp_path):
    run = vitrail.train(
        "digits", "vit_tiny_patch16_224", learning_rate=1e-3, num_train_epochs=1, out=tmp_path / "r", **SMALL
    )
    assert isinstance(run, vitrail.Run) and 0 <= (run.metrics["top1"] or -1) <= 1
    assert run.model.config.dim == 16 and vitrail.load_model(run.weights).labels == tuple("0123456789")
    import torch

    assert len(run.predict(torch.rand(2, 3, 16, 16), optimize=False)) == 2
    assert run.report().name == "report.html"


def test_options_are_checked(tmp_path):
    with pytest.raises(VitrailError, match="epochs"):
        vitrail.train("digits", epoch=3)


@pytest.mark.parametrize(
    ("name", "said"), [("forward_features", "model.features"), ("reset_classifier", "num_classes")]
)
def test_option_names_of_other_libraries_get_a_hint(name, said):
    model = vitrail.create_model("vit_tiny_patch16_224", depth=1)
    with pytest.raises(AttributeError, match=said):
        getattr(model, name)
    assert not hasattr(model, name)


def test_attribute_names_of_other_libraries_get_a_hint():
    with pytest.raises(AttributeError, match=r"vitrail\.train"):
        _ = vitrail.Trainer


def test_aliases_work_in_config_files():
    assert typed(TrainConfig, {"learning_rate": 1e-4, "num_train_epochs": 3}) == {"lr": 1e-4, "epochs": 3}


def test_no_advice_installs_vitrail_from_an_index():
    """The package is on no index: advice to install it by name would fail, or install somebody else's."""
    source = Path(vitrail.__file__).parent
    places = [
        *source.rglob("*.py"),
        *sorted((source.parents[1] / "docs").glob("*.md")),
        source.parents[1] / "README.md",
    ]
    by_name = re.compile(r"(install|pip)( -\S+)* ['\"]?vitrail\b")
    assert [str(path) for path in places if path.is_file() and by_name.search(path.read_text())] == []


def test_the_package_is_typed():
    assert (Path(vitrail.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", ["m.onnx", "m.engine", "m.h5"])
def test_files_of_engines_are_refused(name, tmp_path, capsys):
    import torch

    torch.save(vitrail.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "w.pth")
    assert main(["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert "is not written here" in said and "vitrail export FOLDER --to onnx" in said
    assert not (tmp_path / name).exists()


def test_messages_of_common_first_mistakes(tmp_path, capsys):
    assert (
        main(["train", "digits", "--model", "vit_tiny_patch16_224", "--imgsz", "1000000", "--out", str(tmp_path / "r")])
        == 4
    )
    assert "does not fit into memory" in capsys.readouterr().err
    with pytest.raises(VitrailError, match="called cuda"):
        find_model(tmp_path, device="gpu")
    with pytest.raises(VitrailError, match="is an address"):
        find_images("https://example.org/a.jpg")


def test_evaluate_takes_the_split_there_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"a/{k}.png,{'xy'[k % 2]}" for k in range(12)]
    (tmp_path / "a").mkdir()
    for k in range(12):
        Image.new("RGB", (16, 16), (k * 20, 0, 0)).save(tmp_path / "a" / f"{k}.png")
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    run = vitrail.train(
        "t.csv", "vit_tiny_patch16_224", epochs=1, imgsz=16, set={"depth": 1, "dim": 16, "num_heads": 1}, out="r"
    )
    assert main(["evaluate", str(run.folder), "t.csv"]) == 0
    assert "val is evaluated" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["train", "--resume", "r"]) == 0
    assert "is finished" in "".join(capsys.readouterr())
