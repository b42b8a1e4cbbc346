"""Predictions of dense tasks and parts when the disk fills up, and when the process is killed in a folder."""

import errno
import json
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.data.boxes.coco import read_coco
from vitrail.data.points.shapes import lamp, varied
from vitrail.models import create_model
from vitrail.point_sampling import PointSampling

VIT = {"depth": 1, "dim": 16, "num_heads": 2, "patch_size": 8}
DENSE: dict[str, Any] = {"backbone": "vit_tiny_patch16_224", "backbone_config": VIT, "image_size": 64, "num_classes": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "segment": ("fpn_segmenter", {**DENSE, "channels": 16}),
    "detect": ("faster_rcnn", {**DENSE, "channels": 16, "hidden": 32}),
    "parts": ("pointnet_parts", {"dim": 8, "global_dim": 16, "num_classes": 3, "sampling": PointSampling(32)}),
}
FILES = {"segment": 2, "detect": 1, "parts": 1}
"""Files of each input."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random model of each task."""
    root = tmp_path_factory.mktemp("models")
    for task, (name, fields) in MODELS.items():
        model: Any = create_model(name, **fields).eval()
        labels = ("a", "b", "c")[: model.config.num_classes]
        model.metadata = {"labels": labels}
        vitrail.save_model(model, root / task)
    return root


def write_inputs(folder: Path, task: str, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        if task == "parts":
            mesh = varied(lamp(), number)
            np.savez(folder / f"{number:02}.npz", points=mesh.points, faces=mesh.faces, parts=mesh.parts)
        else:
            draws = np.random.default_rng(number)
            Image.fromarray(draws.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return folder


def words_of(models: Path, task: str, folder: Path, out: Path) -> list[str]:
    words = ["predict", str(models / task), str(folder), "--save", str(out), "--out", f"{out}.jsonl", "--no-optimize"]
    return [*words, "--batch", "1", *(["--threshold", "0.3"] if task == "detect" else [])]


@pytest.mark.parametrize("task", ["detect", "parts"])
def test_full_disk_leaves_whole_files(
    models: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync, count = os.fsync, iter(range(1000))

    def full(file: int) -> None:
        if next(count) >= 3:  # a file and its folder are two
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    words = words_of(models, task, write_inputs(tmp_path / "in", task, 4), tmp_path / "out")
    monkeypatch.setattr("os.fsync", full)
    assert main(words) == 4
    assert "disk" in capsys.readouterr().err
    monkeypatch.undo()
    for path in (tmp_path / "out").iterdir():
        assert path.stat().st_size and path.suffix in (".jpg", ".csv")
    assert main(words) == 0
    assert len(list((tmp_path / "out").glob("[0-9]*"))) == 4
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("task", MODELS)
def test_killed_process_resumes_and_loses_nothing(models: Path, tmp_path: Path, task: str) -> None:
    folder = write_inputs(tmp_path / "in", task, 40)
    assert main(words_of(models, task, folder, tmp_path / "whole")) == 0
    words, lines = words_of(models, task, folder, tmp_path / "out"), tmp_path / "out.jsonl"
    context = get_context("forkserver")
    context.set_forkserver_preload(["vitrail.cli.predict", "vitrail.tasks.detect.task", "vitrail.inference.predict"])
    process = context.Process(target=main, args=(words,))
    process.start()
    while process.is_alive() and not (lines.exists() and lines.read_bytes().count(b"\n") >= 3):
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[!.]*")}  # no half-written file
    done = lines.read_bytes().count(b"\n")
    assert 3 <= done < 40
    assert main(words) == 0
    assert lines.read_text() == (tmp_path / "whole.jsonl").read_text()
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after == {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert sum(path.stat().st_mtime_ns == when for path, when in before.items()) >= FILES[task] * (done - 1)


def test_objects_of_a_folder_are_one_coco_file(models: Path, tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "in", "detect", 3)
    (folder / "broken.png").write_bytes(b"no image")
    words = [*words_of(models, "detect", folder, tmp_path / "out"), "--threshold", "0"]
    assert main(words) == 3
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    found = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["00.png", "01.png", "02.png"]
    assert len(found["annotations"]) == sum(len(row.get("objects", ())) for row in rows) > 0
    assert [each["name"] for each in found["categories"]] == ["a", "b"]
    again = read_coco({"found": tmp_path / "out" / "coco.json"}, folder, "found").require("found")
    assert len(again) == 3 and again.classes == ("a", "b")
