"""`vitrail compress` on a trained classifier, and by weights alone on a model of another task."""

import json

import pytest
import torch
from PIL import Image

from vitrail.cli import main
from vitrail.compress.calibration_data import evaluation_probes, open_probes, training_probes
from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.training.config import TrainConfig
from vitrail.training.train import train
from vitrail.weights.folder import load_model, save_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A digit classifier of two epochs."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    train(
        TrainConfig(
            data="digits",
            model="vit_tiny_patch16_224",
            set=("dim=32", "depth=3", "num_heads=4", "patch_size=4"),
            imgsz=8,
            epochs=2,
            batch=120,
            lr=2e-3,
            precision="fp32",
            save_seconds=0,
            out=str(folder),
        )
    )
    return folder


def test_a_trained_model_is_compressed_measured_and_trained_on(run, tmp_path, capsys):
    out = tmp_path / "small"
    words = ["compress", str(run), "--heads", "0.5", "--mlp", "0.25", "--depth", "2", "--data", "digits"]
    assert main([*words, "--samples", "32", "--measure", "--out", str(out)]) == 0
    said = capsys.readouterr()
    for row in ("parameters", "multiply-adds", "tensors on disk", "latency, batch 1", "Top-1"):
        assert row in said.out
    assert "scores are those of outputs" not in said.err
    small = load_model(out)
    assert [edit.kind for edit in small.edits] == ["drop_blocks", "prune_heads", "prune_hidden"]
    assert json.loads((out / "manifest.json").read_text())["command"].startswith("vitrail compress")
    assert main(["evaluate", str(out), "digits"]) == 0 and main(["cost", str(out)]) == 0


def test_a_plan_reaches_its_size_and_lists_its_trials(run, tmp_path, capsys):
    whole = sum(value.nbytes for value in load_model(run / "weights" / "best").state_dict().values())
    words = ["compress", str(run), "--data", "digits", "--samples", "32", "--out", str(tmp_path / "small")]
    assert main([*words, "--size", f"{0.9 * whole / 1e3:.1f}KB", "--max-loss", "60"]) == 0
    said = capsys.readouterr().out
    assert "unchanged" in said and " *" in said and "reached, with a loss of" in said
    small = load_model(tmp_path / "small")
    assert sum(value.nbytes for value in small.state_dict().values()) <= 0.9 * whole


def test_probes_have_the_loss_only_if_the_classes_are_those_of_the_model(run):
    model, notes = load_model(run / "weights" / "best"), []
    assert all(probe.loss is not None for probe in training_probes(model, "digits", 20))
    model.labels = tuple("abcdefghij")
    with pytest.raises(VitrailError, match="has other labels than the model"):
        training_probes(model, "digits", 20)
    model.labels = tuple("0123456789")
    [first, *_] = evaluation_probes(model, "digits", 20)
    with torch.no_grad():
        assert first.run(model).shape[1] == 10
    other = create_model(model.variant, **{**vars(model.config), "num_classes": 4})
    other.labels = tuple("0123")
    with pytest.raises(VitrailError):
        open_probes(other, "digits", 4, note=notes.append)


def test_a_language_model_is_compressed_by_its_weights(tmp_path, capsys):
    sizes = dict(dim=32, depth=2, num_heads=4, vocab_size=11, max_length=16)
    save_model(create_model("gpt2", **sizes), tmp_path / "gpt")
    assert (
        main(["compress", str(tmp_path / "gpt"), "--heads", "0.5", "--mlp", "0.5", "--out", str(tmp_path / "s")]) == 0
    )
    small = load_model(tmp_path / "s")
    assert small(torch.zeros(1, 5, dtype=torch.long)).shape == (1, 5, 11)
    assert "-" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Nothing is to be removed"),
        (["--heads", "1.5"], "a share below 1 can be removed"),
        (["--target", "2x"], "A plan needs data"),
        (["--target", "2x", "--size", "5MB", "--data", "digits"], "An aim is given alone"),
        (["--size", "5", "--data", "digits"], "give a number with its unit"),
        (["--mlp", "0.5", "--score", "gradient"], "is computed on data"),
        (["--depth", "9"], "can keep 1 to 3 blocks"),
    ],
)
def test_mistakes_are_reported(run, tmp_path, capsys, words, said):
    assert main(["compress", str(run), *words, "--out", str(tmp_path / "small")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "small").exists()


def test_images_without_labels_give_scores_and_no_figures(run, tmp_path, capsys):
    for number in range(3):
        Image.new("L", (8, 8), 80 * number).save(tmp_path / f"{number}.png")
    words = ["compress", str(run), "--mlp", "0.25", "--data", str(tmp_path), "--out", str(tmp_path / "small")]
    assert main([*words, "--sensitivity", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr()
    assert "scores are those of outputs" in said.err and "no figures of the task" in said.out
    assert (tmp_path / "page.html").stat().st_size > 1000
