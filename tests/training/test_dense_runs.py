"""Segmentation and detection: killed runs end with the same bits, alone and in two processes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import box_data
import pytest
import segment_data
from processes import fingerprint, finish, start, start_together, wait_for

from vitrail.training.log import read_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

USUAL = {"precision": "fp32", "epochs": 3, "batch": 4, "save_steps": 2, "save_seconds": 0, "threads": 1}
SWIN = ("dim=8", "depths=1,1", "num_heads=1,2", "channels=16", "window_size=4")
VIT = ("channels=16", "hidden=32", "dim=16", "depth=1", "num_heads=2", "patch_size=8")
SEGMENT = {"model": "swin_tiny_patch4_window7_224", "set": SWIN, "decoder": "fpn", "imgsz": 32, "dice": 0.5, "ema": 0.9}
DETECT = {"model": "vit_tiny_patch16_224", "set": VIT, "detector": "mask_rcnn", "imgsz": 64}


@pytest.fixture(params=["segment", "detect"])
def fields(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Fields of a small run of each task."""
    if request.param == "segment":
        return {"task": "segment", **USUAL, **SEGMENT, "data": segment_data.write(tmp_path / "data")}
    return {"task": "detect", **USUAL, **DETECT, "data": str(box_data.draw_squares(tmp_path / "data", count=16))}


@pytest.mark.parametrize("size", [1, 2])
def test_killed_runs_end_with_the_same_bits(fields: dict[str, Any], tmp_path: Path, size: int) -> None:
    """SIGKILL in the first and the second epoch; gloo adds two gradients in either order to the same bits."""
    launch = {1: lambda run: [start(run)], 2: lambda run: start_together(run, size=2)}[size]
    assert set(finish(*launch({**fields, "out": str(tmp_path / "whole")}), patience=400)) == {0}
    killed = {**fields, "out": str(tmp_path / "killed"), "resume": "auto"}
    kills = 0
    for step in (2, 6):
        processes = launch(killed)
        if wait_for(tmp_path / "killed", step, processes[0]):
            for process in processes:
                os.kill(process.pid or 0, signal.SIGKILL)
            kills += finish(*processes) == [-signal.SIGKILL] * size
    assert kills
    again = {"task": fields["task"], "resume": str(tmp_path / "killed")}
    assert set(finish(*launch(again), patience=400)) == {0}
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")


def test_two_processes_validate_every_image_once(fields: dict[str, Any], tmp_path: Path) -> None:
    """Both runs see the same samples; batch norm has statistics of a process, so losses differ where there is one."""
    one, two = ({**fields, "out": str(tmp_path / name), "epochs": 1} for name in ("one", "two"))
    assert set(finish(start(one), *start_together(two, size=2), patience=400)) == {0}
    steps, epochs = (
        [read_log(tmp_path / name / "metrics.jsonl", kind) for name in ("one", "two")] for kind in ("step", "epoch")
    )
    assert [row["step"] for row in steps[0]] == [row["step"] for row in steps[1]]
    assert epochs[0][0].keys() == epochs[1][0].keys()
    if fields["task"] == "detect":  # no batch norm
        for a, b in zip(*steps, strict=True):
            # Losses of masks and boxes are means over the regions of a process, whose number differs by some percent.
            assert b["loss"] == pytest.approx(a["loss"], rel=0.03)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
