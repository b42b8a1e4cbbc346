"""Two processes make the run that one makes: the same samples a step, the same losses, the same measures."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import finish, start, start_together
from safetensors.torch import load_file

from vitrail.training.checkpoint import list_states
from vitrail.training.config import TrainConfig
from vitrail.training.log import read_log

Make = Callable[..., TrainConfig]

# Dropped paths are drawn by each process for its own samples, so they are the one thing that cannot be the same.
EQUAL: dict[str, Any] = {"drop_path": 0.0, "ema": 0.9, "mixup": 0.3, "cutmix": 0.5, "grad_accum": 2, "threads": 1}


def losses(folder: Path) -> list[float]:
    rows = read_log(folder / "metrics.jsonl", "step")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def measures(folder: Path) -> list[dict[str, float]]:
    return [
        {name: row[name] for name in ("val_loss", "top1", "top5", "train_loss", "lr")}
        for row in read_log(folder / "metrics.jsonl", "epoch")
    ]


def assert_same_run(one: Path, two: Path) -> None:
    assert losses(two) == pytest.approx(losses(one), abs=1e-6)
    for a, b in zip(measures(one), measures(two), strict=True):
        assert b == pytest.approx(a, abs=1e-6)  # counts over all validation images: equal means not one is off
    weights = [load_file(folder / "weights" / "last" / "model.safetensors") for folder in (one, two)]
    for name, value in weights[0].items():
        if name.endswith("qkv.bias"):
            continue  # the keys' bias moves no softmax: its gradient is rounding, and AdamW makes whole steps of it
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_make_the_run_of_one(tiny: Make, tmp_path: Path, parallel: Any) -> None:
    one, two = (tiny(**EQUAL, parallel=parallel, out=str(tmp_path / name)) for name in ("one", "two"))
    alone, pair = start(one), start_together(two, size=2)
    assert finish(alone, *pair) == [0, 0, 0]
    assert_same_run(tmp_path / "one", tmp_path / "two")


def best_only_once() -> None:
    """Let no validation but the first be the best: copying weights also shards them again."""
    from vitrail.training.trainer import Trainer

    take = Trainer.take_as_best

    def once(self: Trainer, metrics: dict[str, float]) -> None:
        if self.at.best is None:
            take(self, metrics)

    Trainer.take_as_best = once


def test_no_update_is_computed_with_the_average(tiny: Make, tmp_path: Path) -> None:
    """FSDP once kept the averaged weights unsharded after a validation, and the next update read them."""
    one, two = (tiny(**EQUAL, parallel="fsdp", epochs=3, out=str(tmp_path / name)) for name in ("one", "two"))
    assert finish(start(one, before=best_only_once), *start_together(two, size=2, before=best_only_once)) == [0, 0, 0]
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(("before", "after", "parallel"), [(1, 2, "fsdp"), (2, 1, "fsdp"), (1, 2, "ddp")])
def test_a_run_continues_with_another_number_of_processes(
    tiny: Make, tmp_path: Path, before: int, after: int, parallel: Any
) -> None:
    """R6: stopped in the middle of an epoch with 1 (2) processes, gone on with 2 (1)."""
    whole = tiny(**EQUAL, parallel=parallel, epochs=3, out=str(tmp_path / "whole"))
    alone = start(whole)
    broken = tiny(**EQUAL, parallel=parallel, save_steps=4, epochs=3, out=str(tmp_path / "broken"))
    first = start_together(broken, size=before) if before > 1 else [start(broken)]
    for _ in range(20_000):
        if list_states(tmp_path / "broken" / "state"):
            break
        time.sleep(0.002)
    for process in first:
        os.kill(process.pid or 0, signal.SIGTERM)
    assert set(finish(*first)) <= {143}
    stopped = len(losses(tmp_path / "broken"))
    assert 4 <= stopped < 30
    goes_on = TrainConfig(resume=broken.out)
    second = start_together(goes_on, size=after) if after > 1 else [start(goes_on)]
    assert set(finish(*second)) == {0}
    assert len(losses(tmp_path / "broken")) == 30
    assert finish(alone) == [0]
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_when_one_process_dies_the_others_end_too(tiny: Make, tmp_path: Path) -> None:
    """R6: an error, never a wait without end; torchrun would then start all of them again with resume=auto."""
    config = tiny(**{**EQUAL, "save_steps": 2, "epochs": 10_000})
    pair = start_together(config, size=2)
    for _ in range(20_000):
        if list_states(tmp_path / "run" / "state"):
            break
        time.sleep(0.002)
    os.kill(pair[1].pid or 0, signal.SIGKILL)
    codes = finish(*pair)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, -signal.SIGKILL)
    assert list_states(tmp_path / "run" / "state")
