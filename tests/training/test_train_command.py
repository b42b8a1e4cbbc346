"""`vitrail train` from the command line: messages, files, and exit codes."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vitrail.cli import main

TINY = ["--set", "dim=16", "depth=1", "num_heads=2", "patch_size=4", "--model", "vit_tiny_patch16_224", "--imgsz", "8"]


def test_a_run_ends_with_a_report_and_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", "data=digits", *TINY, "--epochs", "2", "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "epoch    2" in said and "images/s" in said and "ETA" in said
    assert {"report.html", "evaluation.json", "summary.json"} <= {path.name for path in folder.iterdir()}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["command"].startswith("vitrail train data=digits --set dim=16")
    assert summary["task"] == "classify" and summary["split"] == "test" and 0 <= summary["top1"] <= 1
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["top1"][0] == pytest.approx(summary["top1"], abs=1e-9)

    assert main(["train", "digits", *TINY, "--out", str(folder)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder), "--lr", "0.5"]) == 2
    assert "begun with lr=0.001" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder)]) == 0
    assert json.loads((folder / "summary.json").read_text())["top1"] == summary["top1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits", "--lr", "0"], "above 0"),
        (["digits", "--batch", "0"], "at least 1"),
        (["digits", "--model", "swim_tiny"], "swin_tiny"),
        (["digits", "--optimiser", "adamw"], "optimizer"),
        (["nowhere/at/all"], "nowhere"),
        (["--resume", "nowhere"], "no run"),
        (["--resume", "auto"], "--out"),
        ([], "Nothing to learn from"),
    ],
)
def test_mistakes_get_cause_and_remedy(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) in (2, 3)
    message = capsys.readouterr().err
    assert said in message and len(message.splitlines()) <= 6


def test_the_batch_size_is_reduced_for_few_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label, light in (("dark", 20), ("light", 220)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), (light + i, light, light)).save(tmp_path / "photos" / label / f"{i}.png")
    words = ["train", str(tmp_path / "photos"), *TINY, "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert "36 images, 2 classes, batch 8," in capsys.readouterr().out
    assert "batch: 8\n" in (tmp_path / "run" / "config.yaml").read_text()
    assert main([*words, "--resume", "auto"]) == 0  # no batch given is no other batch
    assert main([*words[:-2], "--batch", "100", "--out", str(tmp_path / "other")]) == 2
    assert "at most 36" in capsys.readouterr().err


def test_a_damaged_config_is_a_data_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("lr: [1")
    assert main(["train", "--resume", str(tmp_path)]) == 3
    assert "config.yaml is damaged" in capsys.readouterr().err


def test_a_dry_run_prints_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", *TINY, "--dry-run", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("parameters", "memory", "updates", "time"))
    assert not list(tmp_path.iterdir())
