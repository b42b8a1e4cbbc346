"""Dry run: sizes, memory and time of a run, measured on a few real updates that are undone."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vitrail.machine.host_memory import capacity, peak_of
from vitrail.tasks import find_task
from vitrail.tasks.task import BatchLoader, DataCheck, DataSplits
from vitrail.training.config import RunConfig
from vitrail.training.distributed import connect
from vitrail.training.loop import validate
from vitrail.training.probe import try_step, untouched
from vitrail.training.reporters import NullReporter, clock
from vitrail.training.run_dir import refuse_folder
from vitrail.training.schedule import Steps
from vitrail.training.setup import open_data
from vitrail.training.signals import StopRequest
from vitrail.training.train import isolated_rng, make_run, title
from vitrail.training.trainer import Trainer

_STEPS = 5


@dataclass(frozen=True)
class Plan:
    """Estimated cost of a run.

    Args:
        config: the config with every `auto` resolved.
        title: model, data and batch in a line.
        counts: samples by split.
        parameters: number of weights.
        learning: number of trainable weights.
        steps: updates of the whole run; 0 if its length is given in minutes.
        steps_per_epoch: updates of an epoch.
        peak: peak memory of the measured updates, in bytes.
        capacity: memory in use by this process plus available memory, in bytes.
        step_seconds: seconds of an update, including data loading.
        validation_seconds: seconds of a validation.
        seconds: seconds of the whole run, with the final evaluation and the report.
        check: faults of the data, and warnings.
    """

    config: RunConfig
    title: str
    counts: dict[str, int]
    parameters: int
    learning: int
    steps: int
    steps_per_epoch: int
    peak: int
    capacity: int
    step_seconds: float
    validation_seconds: float
    seconds: float
    check: DataCheck

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        fits = "fits" if self.peak < self.capacity else "DOES NOT FIT"
        rate = self.config.batch / self.step_seconds if isinstance(self.config.batch, int) else 0.0
        return [
            self.title,
            f"data        {counts}",
            *(f"bad         {problem}" for problem in self.check.bad[:5]),
            *(f"note        {warning}" for warning in self.check.warnings),
            f"parameters  {self.parameters:,}, of which {self.learning:,} learn",
            f"updates     {self.steps_per_epoch:,} an epoch" + (f", {self.steps:,} in all" if self.steps else ""),
            f"memory      {self.peak / 2**20:,.0f} MB of {self.capacity / 2**20:,.0f} MB: {fits}",
            f"speed       {self.step_seconds * 1000:,.1f} ms an update, {rate:,.0f} samples/s",
            f"validation  {self.validation_seconds:.1f} s, every {self.config.eval_every} epochs",
            f"time        about {clock(self.seconds)}",
        ]


def dry_run(config: RunConfig) -> Plan:
    """Build a run, make a few updates, undo them, and estimate the cost of the run.

    Args:
        config: the run.

    Raises:
        VitrailError: any error that the run itself would raise at its start.
    """
    world = connect(config.device, config.parallel)
    begun = Path(config.out) if config.resume and config.out else None
    try:
        world.follow(lambda: refuse_folder(config, begun))
        with isolated_rng(config):
            splits = open_data(config)
            check = find_task(config.task).check(config.data, config.val_share)
            run = make_run(config, world, splits, NullReporter(), StopRequest())
            return measure(run, splits, check)
    finally:
        world.close()


def measure(run: Trainer, splits: DataSplits, check: DataCheck) -> Plan:
    """Measure memory and speed of a session, and leave it as it was."""
    with untouched(run):
        ends: list[float] = []

        def updates() -> None:  # memory grows in the first few
            for batch in islice(_forever(run), 1 + _STEPS):
                try_step(run, batch)
                ends.append(time.monotonic())

        peak = peak_of(updates, run.world.device)
        step_seconds = (ends[-1] - ends[0]) / _STEPS
        part = _First(run.val_data, _STEPS)
        validate(run, part)  # the first pass starts workers and warms up
        start = time.monotonic()
        validate(run, part)
        validation = (time.monotonic() - start) * run.val_data.steps / min(_STEPS, run.val_data.steps)
    steps = run.length.total if isinstance(run.length, Steps) else 0
    assert run.config.epochs is not None
    validations = -(-run.config.epochs // run.config.eval_every)
    minutes = run.config.minutes
    run.folder, run.sample_seconds = Path(), validation / len(run.val_data.dataset)
    finish = run.finish_seconds()
    seconds = (steps * step_seconds + validations * validation if minutes is None else minutes * 60) + finish
    return Plan(
        config=run.config,
        title=title(run, splits),
        counts={split: len(samples) for split, samples in splits},
        parameters=sum(p.numel() for p in run.model.parameters()),
        learning=sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        steps=steps,
        steps_per_epoch=run.train_data.steps,
        peak=peak,
        capacity=capacity(run.world.device),
        step_seconds=step_seconds,
        validation_seconds=validation,
        seconds=seconds,
        check=check,
    )


class _First:
    """The first batches of a loader."""

    def __init__(self, loader: BatchLoader, steps: int):
        self.loader, self.dataset, self.steps = loader, loader.dataset, steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Any]:
        return islice(self.loader.epoch(epoch, start_step), self.steps)


def _forever(run: Trainer) -> Any:
    epoch = 0
    while True:
        yield from run.train_data.epoch(epoch)
        epoch += 1
