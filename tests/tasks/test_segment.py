"""Segmentation goes through every tool: training, exact resume, evaluation, prediction, report."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segment_data
import torch
from PIL import Image
from safetensors.torch import load_file

import vitrail
from vitrail.cli import main
from vitrail.data.mask_io import open_mask
from vitrail.errors import VitrailError
from vitrail.training.config import RunConfig, config_class
from vitrail.training.train import train

SMALL = ("dim=8", "depths=1,1", "num_heads=1,2", "channels=16", "window_size=4")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return segment_data.write(tmp_path_factory.mktemp("shapes"))


def config(data: str, out: Path, **changes: Any) -> RunConfig:
    usual: dict[str, Any] = {"data": data, "epochs": 2, "batch": 4, "precision": "fp32", "save_seconds": 0}
    usual |= {"model": "swin_tiny_patch4_window7_224", "set": SMALL, "decoder": "fpn", "imgsz": 32}
    return config_class("segment")(**{**usual, "out": str(out), **changes})


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("segment") / "run"
    train(config(data, folder, epochs=15, lr=1e-2, dice=0.5, drop_path=0.0))
    return folder


def test_it_learns(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "segment" and summary["miou"] > 0.5 and summary["pixel_accuracy"] > 0.75
    model = vitrail.load_model(run / "weights" / "best")
    assert (model.task, model.variant, model.config.backbone) == (
        "segment",
        "fpn_segmenter",
        "swin_tiny_patch4_window7_224",
    )
    assert dict(model.config.backbone_config)["depths"] == (1, 1)
    assert model.labels == ("ground", "disc", "box") and tuple(model.metadata["ignore"]) == (3, 255)
    card = (run / "weights" / "best" / "README.md").read_text()
    assert "semantic segmentation" in card and "image-segmentation" in card


def test_resumed_it_ends_with_the_same_bits(data: str, tmp_path: Path) -> None:
    options = {"epochs": 2, "save_steps": 3, "class_weights": "balanced", "decoder": "upernet"}
    options["set"] = (*SMALL, "auxiliary_channels=8")
    train(config(data, tmp_path / "whole", **options))
    words = [str(data), "--task", "segment", "--model", "swin_tiny_patch4_window7_224", "--set", *options["set"]]
    words += ["--decoder", "upernet", "--imgsz", "32", "--epochs", "2", "--batch", "4", "--precision", "fp32"]
    words += ["--save-steps", "3", "--save-seconds", "0", "--class-weights", "balanced", "--out", str(tmp_path / "cut")]
    from vitrail.training.loop import train_epoch

    calls = []

    def cut(run: Any) -> None:
        calls.append(run)
        if len(calls) == 2:
            raise KeyboardInterrupt
        train_epoch(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.training.loop.train_epoch", cut)
        assert main(["train", *words]) != 0
    assert not (tmp_path / "cut" / "summary.json").exists()
    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    one, two = (load_file(tmp_path / name / "weights" / "last" / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_figures_are_those_of_a_plain_loop(run: Path, data: str) -> None:
    evaluation = vitrail.evaluate(run, data, optimize=False, batch=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrail.tasks.segment.scores.MOST_SCORES", 1)  # one image at a time
        alone = vitrail.evaluate(run, data, optimize=False)
    assert np.array_equal(evaluation.confusion, alone.confusion)
    results = vitrail.predict(run, str(Path(data) / "test"))
    right = np.zeros(3)
    union, hits, total = np.zeros(3), 0, 0
    for result in results:
        truth = open_mask(Path(data) / "testannot" / Path(result.path).name)
        counted = truth != 3
        for c in range(3):
            right[c] += ((truth == c) & (result.mask == c) & counted).sum()
            union[c] += (((truth == c) | (result.mask == c)) & counted).sum()
        hits, total = hits + ((truth == result.mask) & counted).sum(), total + counted.sum()
    assert evaluation.miou == pytest.approx((right / union).mean()) and evaluation.samples == 6
    assert evaluation.pixel_accuracy == pytest.approx(hits / total)
    kept = json.loads((run / "summary.json").read_text())
    assert kept["miou"] == pytest.approx(evaluation.miou, abs=1e-6)
    again = type(evaluation).from_dict(json.loads(json.dumps(evaluation.to_dict())))
    assert again == evaluation


def test_windows_and_mirror_images(run: Path, data: str) -> None:
    whole = vitrail.evaluate(run, data)
    for options in ({"window": 32}, {"flip_test": True}, {"window": 24, "flip_test": True, "overlap": 0.5}):
        assert vitrail.evaluate(run, data, **options).miou > whole.miou - 0.1, options


def test_predict_writes_masks_and_overlays(
    run: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    sizes = {"a.png": (40, 32), "dot.png": (1, 1), "strip.png": (10_000, 1), "deep/a.png": (50, 70)}
    for name, size in sizes.items():
        Image.new("RGB", size, (200, 60, 60)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(folder), "--json", "--save", str(out)]) == 3
    rows = {
        Path(row["path"]).relative_to(folder).as_posix(): row
        for row in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert "error" in rows.pop("broken.png")
    for name, (width, height) in sizes.items():
        mask = open_mask((out / name).with_name(f"{Path(name).stem}_mask.png"))
        assert mask.shape == (height, width) == (rows[name]["height"], rows[name]["width"])
        assert sum(length for _, length in rows[name]["runs"]) == mask.size
        assert (out / name).with_name(f"{Path(name).stem}_overlay.jpg").exists()
    [result] = vitrail.predict(run, Image.new("RGB", (30, 20), (200, 60, 60)))
    assert result.draw().size[0] == 30 and "%" in str(result) and result.cells()[:2] == ("20", "30")


def test_a_full_disk_while_masks_are_written_leaves_whole_files(
    run: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync = os.fsync
    count = iter(range(100))

    def full(file: int) -> None:
        if next(count) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    images = str(Path(data) / "val")
    monkeypatch.setattr("os.fsync", full)
    assert main(["predict", str(run), images, "--json", "--save", str(tmp_path / "out")]) == 4
    assert "disk" in capsys.readouterr().err
    monkeypatch.undo()
    for path in (tmp_path / "out").rglob("*.*"):
        with Image.open(path) as image:
            image.load()  # whole files only
    assert main(["predict", str(run), images, "--json", "--save", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 6


def test_the_report_shows_classes_and_the_worst_images(
    run: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["evaluate", str(run), data, "--report", str(page), "--worst", "2"]) == 0
    out, text = capsys.readouterr().out, page.read_text()
    assert "mean IoU" in out and "disc" in out
    assert text.count("True classes of") == 2 and "Class by class" in text and "What is taken for what" in text


def test_the_check_finds_faults_before_training(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", data, "--task", "segment"]) == 0
    assert "everything can be used" in capsys.readouterr().out
    bad = Path(segment_data.write(tmp_path / "bad", 4, 1, 0))
    Image.fromarray(np.full((32, 40), 9, np.uint8)).save(bad / "trainannot" / "00.png")
    assert main(["data", "check", str(bad), "--task", "segment", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["kinds"] == {"class number": 1}
    with pytest.raises(VitrailError, match=r"(?s)train/00.png: class number 9.*--bad skip"):
        train(config(str(bad), tmp_path / "run"))
    train(config(str(bad), tmp_path / "other", bad="skip", batch=2, epochs=1))


def test_an_empty_mask_does_not_count(data: str, tmp_path: Path) -> None:
    root = Path(segment_data.write(tmp_path / "empty", 4, 1, 0))
    for i in range(3):
        Image.fromarray(np.full((32, 40), 255, np.uint8)).save(root / "trainannot" / f"0{i}.png")
    train(config(str(root), tmp_path / "run", batch=1, epochs=1))


def test_a_segmenter_of_the_catalogue_needs_no_task(data: str, tmp_path: Path) -> None:
    words = ["--model", "fpn_segmenter", "--set", "dim=16", "depth=1", "num_heads=2", "channels=8", "--imgsz", "32"]
    words += ["--epochs", "1", "--batch", "8", "--out", str(tmp_path / "run")]
    assert main(["train", data, *words]) == 0
    model = vitrail.load_model(tmp_path / "run" / "weights" / "last")
    assert model.variant == "fpn_segmenter" and dict(model.config.backbone_config)["dim"] == 16


def test_mismatched_classes_and_sizes_are_refused(data: str, tmp_path: Path) -> None:
    for changes, message in (
        ({"set": (*SMALL, "num_classes=5")}, "has 3 classes; leave num_classes out"),
        ({"model": "gpt2", "set": ()}, "a model of the task language"),
        ({"model": "upernet_swin_tiny", "set": ("colour=1",)}, "Unknown field of swin_tiny"),
    ):
        with pytest.raises(VitrailError, match=message):
            train(config(data, tmp_path / "run", **changes))
    with pytest.raises(VitrailError, match="scale_min is 2"):
        config(data, tmp_path / "run", scale_min=2.0, scale_max=1.0)
