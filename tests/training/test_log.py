"""Every step occurs once in the log, also if a resumed run truncates it."""

import csv
import json
from pathlib import Path
from typing import Any

from vitrail.training.log import RunLog, read_log


def row(step: int) -> dict[str, Any]:
    return {"step": step, "epoch": 0, "loss": 1.0 / step, "lr": 1e-3, "grad_norm": 0.5}


def result(step: int) -> dict[str, Any]:
    numbers = {"train_loss": 1.0, "val_loss": float("nan"), "top1": 0.5, "top5": 1.0, "lr": 1e-3}
    return {"step": step, "epoch": 1.0, **numbers, "seconds": 1.5, "best": True}


def test_a_truncated_log_resumes_without_gaps_or_duplicates(tmp_path: Path) -> None:
    log = RunLog(tmp_path, {})
    for step in (1, 2, 3):
        log.step(row(step))
    log.epoch(result(3))
    lengths = log.flush()
    for step in (4, 5, 6):
        log.step(row(step))
    log.epoch(result(6))
    log.close()

    log = RunLog(tmp_path, lengths, step=3)
    for step in (4, 5):
        log.step(row(step))
    log.epoch(result(5))
    log.close()
    assert [line["step"] for line in read_log(tmp_path / "metrics.jsonl", "step")] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in read_log(tmp_path / "metrics.jsonl", "epoch")] == [3, 5]
    with open(tmp_path / "results.csv", newline="") as file:
        assert [line["step"] for line in csv.DictReader(file)] == ["3", "5"]


def test_a_half_written_last_line_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "step", **row(1)}) + '\n{"kind": "step", "st')
    assert [line["step"] for line in read_log(tmp_path / "metrics.jsonl", "step")] == [1]


def test_nan_is_null_in_json(tmp_path: Path) -> None:
    log = RunLog(tmp_path, {})
    log.epoch(result(1))
    log.close()
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert read_log(tmp_path / "metrics.jsonl", "epoch")[0]["val_loss"] is None


def test_tensorboard_events_are_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, {})
    log.step(row(1))
    log.step(row(2))
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
