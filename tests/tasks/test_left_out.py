"""Unusable samples that `--bad skip` leaves out are counted and named: in print, in JSON, on the page."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import segment_data
from box_data import draw_squares
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.data.masks import open_masks
from vitrail.errors import DataError
from vitrail.models import create_model
from vitrail.report.html_page import write_report
from vitrail.tasks.evaluation_file import read_evaluation
from vitrail.training.checkpoint import list_states, saved_fact
from vitrail.training.config import config_class
from vitrail.training.reporters import NullReporter
from vitrail.training.run_dir import read_config
from vitrail.training.train import Summary, train

BROKEN = b"\x89PNG\r\n\x1a\n cut short"
SMALL = {"imgsz": 16, "set": ("dim=16", "depth=1", "num_heads=2", "patch_size=8"), "augment": "none"}
NARROW = ("dim=8", "depths=1,1", "num_heads=1,2", "channels=16", "window_size=4")
DETECTOR = ("channels=16", "hidden=32", "dim=16", "depth=1", "num_heads=2", "patch_size=8")


class Notes(NullReporter):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@dataclass
class Case:
    data: str
    options: dict[str, Any]
    names: set[str]
    split: str = "val"
    notes: list[str] = field(default_factory=list)
    summary: Summary | None = None
    run: Path = Path()


def classes(folder: Path) -> Case:
    names = set()
    for split in ("train", "val"):
        for kind, shade in (("dark", 20), ("light", 220)):
            place = folder / split / kind
            place.mkdir(parents=True)
            for i in range(6):
                Image.new("RGB", (30 + i, 30), (shade + i,) * 3).save(place / f"{i}.png")
            (place / "broken.png").write_bytes(BROKEN)
            names.add(f"{split}/{kind}/broken.png")
    return Case(str(folder), {"model": "vit_tiny_patch16_224", **SMALL}, names)


def large(folder: Path) -> Case:
    """Images too large for the cache of decoded data, so each is read by the task itself."""
    for split in ("train", "val"):
        for i in range(8):
            place = folder / split / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (100, 100), (30 * i,) * 3).save(place / f"{i}.png")
        (folder / split / "a" / "broken.png").write_bytes(BROKEN)
    sizes = ("dim=16", "depth=1", "num_heads=2", "side=4", "colors=4")
    options = {"model": "pixel_gpt_xxs", "set": sizes}
    return Case(str(folder), options, {f"{split}/a/broken.png" for split in ("train", "val")})


def labels(folder: Path) -> Case:
    rows = ["path,labels,split"]
    for i in range(16):
        path = folder / f"{i}.png"
        Image.new("RGB", (16, 16), (255 * (i % 2), 90 + i, 0)).save(path)
        rows.append(f"{i}.png,{'red' if i % 2 else 'blue'},{'val' if i % 4 == 0 else 'train'}")
    for i in (1, 4):
        (folder / f"{i}.png").write_bytes(BROKEN)
    rows += ["2.png,red,val", ",red,val"]  # named before, and without a path
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return Case(
        str(folder / "labels.csv"),
        {"model": "vit_tiny_patch16_224", **SMALL},
        {"1.png", "4.png", "labels.csv row 18", "labels.csv row 19"},
    )


def masks(folder: Path) -> Case:
    segment_data.write(folder, 6, 4, 0)
    for split in ("train", "val"):
        (folder / split / "01.png").write_bytes(BROKEN)
    options = {"model": "swin_tiny_patch4_window7_224", "set": NARROW, "decoder": "fpn", "imgsz": 32}
    return Case(str(folder), options, {"train/01.png", "val/01.png"})


def boxes(folder: Path) -> Case:
    draw_squares(folder)
    for i in range(0, 12, 3):  # half of them are found when the data is opened, half when they are decoded
        path = folder / "images" / f"{i}.png"
        path.write_bytes(path.read_bytes()[:-2000] if i % 2 else BROKEN)
    options = {"model": "vit_tiny_patch16_224", "detector": "faster_rcnn", "set": DETECTOR, "imgsz": 64}
    return Case(str(folder), options, {f"{i}.png" for i in range(0, 12, 3)}, split="all")


CASES: dict[str, Callable[[Path], Case]] = {
    "classify": classes,
    "complete": large,
    "multilabel": labels,
    "segment": masks,
    "detect": boxes,
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A finished run on data with unreadable images."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "data").mkdir()
    made = CASES[request.param](folder / "data")
    usual = {"data": made.data, "epochs": 1, "batch": 4, "precision": "fp32", "bad": "skip", "save_seconds": 0}
    made.run, reporter = folder / "run", Notes()
    made.summary = train(config_class(request.param)(**{**usual, **made.options, "out": str(made.run)}), reporter)
    made.notes = reporter.texts
    return made


def test_a_training_counts_and_names_them(case: Case) -> None:
    summary = json.loads((case.run / "summary.json").read_text())
    assert summary["skipped"] == len(case.names) and set(summary["skipped_names"]) <= case.names
    assert set(saved_fact(list_states(case.run / "state"), "skipped", {})) <= case.names  # for a resumed run
    told = [text for text in case.notes if "left out" in text]
    assert told and any(name in told[0] for name in case.names)
    measured = json.loads((case.run / "evaluation.json").read_text())
    count = measured.get("samples", measured.get("images"))
    assert f"Measuring the best weights on {count} samples (val)." in case.notes
    assert f"{len(case.names)} samples left out as unusable: " in write_report(case.run).read_text()


def test_an_evaluation_counts_and_names_them(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "e.json", tmp_path / "e.html"
    words = ["evaluate", str(case.run), case.data, "--bad", "skip", "--split", case.split, "--out", str(file)]
    assert main([*words, "--report", str(page)]) == 0
    found, out = json.loads(file.read_text()), capsys.readouterr().out
    assert found["skipped"] and set(found["skipped_names"]) <= case.names
    name = found["skipped_names"][0]
    assert f"left out: {name}" in out
    assert f"left out: {name}" in page.read_text() and f"unusable: {name}" in page.read_text()
    assert read_evaluation(file).to_dict()["skipped"] == found["skipped"]


def test_a_training_of_a_detector_that_stops_at_one_names_the_remedy(tmp_path: Path) -> None:
    draw_squares(tmp_path)
    for path in (tmp_path / "images").iterdir():  # the headers can be read, so opening the data finds nothing
        path.write_bytes(path.read_bytes()[:-2000])
    options = {"model": "vit_tiny_patch16_224", "detector": "faster_rcnn", "set": DETECTOR, "imgsz": 64}
    config = config_class("detect")(data=str(tmp_path), epochs=1, batch=4, out=str(tmp_path / "run"), **options)
    with pytest.raises(DataError, match=r"\.png: .*\n.*--bad skip"):
        train(config)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a segmenter with random weights, for the data of `segment_data`."""
    folder = tmp_path_factory.mktemp("segmenter")
    data = segment_data.write(folder / "data", 2, 1, 0)
    options = {"model": "swin_tiny_patch4_window7_224", "set": NARROW, "decoder": "fpn", "imgsz": 32}
    config = config_class("segment")(data=data, epochs=1, batch=2, precision="fp32", out=str(folder / "run"), **options)
    train(config)
    return folder / "run"


@pytest.mark.parametrize("split", ["val", "all"])
def test_an_evaluation_counts_and_names_images_without_a_mask(
    segmenter: Path, tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = segment_data.write(tmp_path, 0, 4, 0)
    for name in ("train", "trainannot", "test", "testannot"):
        (tmp_path / name).rmdir()
    (tmp_path / "valannot" / "02.png").unlink()
    (tmp_path / "val" / "03.png").write_bytes(BROKEN)
    assert main(["evaluate", str(segmenter), data, "--split", split]) == 3
    assert "val/02.png: no mask of this name" in (error := capsys.readouterr().err) and "--bad skip" in error
    assert main(["evaluate", str(segmenter), data, "--split", split, "--bad", "skip"]) == 0
    assert "2 images cannot be used and are left out: val/02.png, val/03.png." in capsys.readouterr().out
    result = vitrail.evaluate(segmenter, data, split=split, bad="skip", device="cpu")
    assert (result.samples, result.skipped_names) == (2, ("val/02.png", "val/03.png"))


def test_a_split_that_is_held_out_keeps_what_was_skipped(tmp_path: Path) -> None:
    segment_data.write(tmp_path, 4, 0, 0)
    for name in ("val", "valannot", "test", "testannot"):
        (tmp_path / name).rmdir()
    (tmp_path / "trainannot" / "02.png").unlink()
    assert open_masks(str(tmp_path), bad="skip").require("val").skipped == ("train/02.png",)


def test_an_evaluation_that_stops_at_one_names_the_remedy(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(case.run), case.data, "--split", case.split]) == 3
    error = capsys.readouterr().err
    assert any(f"{name}: " in error for name in case.names)
    assert re.search("or leave (it|them) out: --bad skip", error)
    with pytest.raises(DataError, match=r"bad.+skip"):
        vitrail.evaluate(case.run, case.data, split=case.split, device="cpu")


@pytest.mark.parametrize("side", [30, 100])
def test_a_probe_counts_and_names_them(side: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small images are decoded when the data is opened, large ones when they are used."""
    made = classes(tmp_path / "data")
    for path in Path(made.data).rglob("[0-9].png"):
        with Image.open(path) as image:
            image.resize((side, side)).save(path)
    model = str(vitrail.save_model(create_model("vit_tiny_patch16_224", dim=8, depth=1, num_heads=1), tmp_path / "m"))
    assert main(["probe", model, made.data]) == 3
    assert "broken.png: not an image" in (error := capsys.readouterr().err) and "--bad skip" in error
    assert main(["probe", model, made.data, "--bad", "skip", "--out", str(tmp_path / "p.json")]) == 0
    assert "12 samples (data val). 4 samples cannot be used and are left out:" in capsys.readouterr().err
    [found] = json.loads((tmp_path / "p.json").read_text())
    assert found["skipped"] == 4 and set(found["skipped_names"]) == made.names


def test_folds_count_and_name_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = classes(tmp_path / "data")
    small = ["--model", made.options["model"], "--imgsz", "16", "--set", *SMALL["set"], "--augment", "none"]
    words = ["train", made.data, "--folds", "2", "--epochs", "1", "--batch", "4", "--precision", "fp32", *small]
    assert main([*words, "--bad", "skip", "--out", str(tmp_path / "run")]) == 0
    names = ["train/dark/broken.png", "train/light/broken.png"]
    assert f"2 samples cannot be used and are left out: {', '.join(names)}." in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["skipped_folds"], summary["skipped_names"]) == ([2, 2], names)


def test_images_without_a_mask_are_told_when_the_data_is_opened(tmp_path: Path) -> None:
    segment_data.write(tmp_path, 3, 1, 0)
    (tmp_path / "trainannot" / "02.png").unlink()
    splits = open_masks(str(tmp_path), bad="skip")
    assert [problem.id for problem in splits.skipped] == ["train/02.png"]
    assert splits.notes() == [
        "1 images or masks have no partner and are left out, first train/02.png: no mask of this name in trainannot/."
    ]


def test_a_finished_run_that_is_resumed_remembers_them(case: Case) -> None:
    kind = config_class(read_config(case.run).task)
    again = train(kind(resume=str(case.run)))
    assert case.summary is not None and set(again.skipped_names) == set(case.summary.skipped_names) == case.names
