"""Dry run: sizes, memory and time of a run, measured on a few real updates that are undone."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
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
_LIBRARIES = 40 * 2**20
"""Memory of the libraries for logs, figures and the report, in bytes (Matplotlib, TensorBoard)."""


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
        peak: peak memory of the run in bytes: measured for updates and validations, counted for its end.
        capacity: memory in use by this process plus available memory, in bytes.
        warm_up_seconds: additional seconds of the first update and the first validation, and of features that are
            computed once.
        step_seconds: seconds of an update, including data loading.
        validation_seconds: seconds of a validation.
        finish_seconds: seconds of saving, the final evaluation and the report.
        check: faults of the data, and warnings; None before the data is checked.
        notes: messages of the start of the run: model, recipe, advice.
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
    warm_up_seconds: float
    step_seconds: float
    validation_seconds: float
    finish_seconds: float
    check: DataCheck | None = None
    notes: tuple[str, ...] = ()

    @property
    def validations(self) -> int:
        """Number of validations."""
        assert self.config.epochs is not None
        return -(-self.config.epochs // self.config.eval_every)

    @property
    def loop_seconds(self) -> float:
        """Seconds of updates and validations."""
        if self.config.minutes is not None:
            return self.config.minutes * 60
        repeated = self.steps * self.step_seconds + self.validations * self.validation_seconds
        return self.warm_up_seconds + repeated

    @property
    def seconds(self) -> float:
        """Seconds from the first update to the end of the report."""
        return self.loop_seconds + self.finish_seconds

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        fits = "fits" if self.peak < self.capacity else "DOES NOT FIT"
        rate = self.config.batch / self.step_seconds if isinstance(self.config.batch, int) else 0.0
        learning = "all" if self.learning == self.parameters else f"{self.learning:,}"
        every = "every epoch" if self.config.eval_every == 1 else f"every {self.config.eval_every} epochs"
        return [
            *self.notes,
            self.title,
            f"data        {counts}",
            *(f"bad         {problem}" for problem in (self.check.bad[:5] if self.check else ())),
            *(f"note        {warning}" for warning in (self.check.warnings if self.check else ())),
            f"parameters  {self.parameters:,}, {learning} trained",
            f"updates     {self.steps_per_epoch:,} an epoch" + (f", {self.steps:,} in all" if self.steps else ""),
            f"memory      {self.peak / 2**20:,.0f} MB of {self.capacity / 2**20:,.0f} MB: {fits}",
            f"speed       {self.step_seconds * 1000:,.1f} ms an update, {rate:,.0f} samples/s",
            f"validation  {self.validation_seconds:.1f} s, {every}",
            f"time        about {clock(self.seconds)} ({self.seconds:.1f} s): {self._parts()}",
        ]

    def _parts(self) -> str:
        """Return the parts of the time."""
        last = f"saving, final evaluation and report {self.finish_seconds:.1f}; start-up comes before"
        if self.config.minutes is not None:
            return f"{self.config.minutes:g} minutes of training, {last}"
        updates, validations = self.steps * self.step_seconds, self.validations * self.validation_seconds
        return f"warm-up {self.warm_up_seconds:.1f}, updates {updates:.1f}, validations {validations:.1f}, {last}"


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
            notes = Notes()
            run = make_run(config, world, splits, notes, StopRequest())
            plan = replace(measure(run, splits), notes=tuple(notes.texts))
            # Last, for what it reads would stay in this process and blur the measure.
            return replace(plan, check=find_task(config.task).check(config.data, config.val_share))
    finally:
        world.close()


def measure(run: Trainer, splits: DataSplits) -> Plan:
    """Measure memory and speed of a session, and leave it as it was."""
    with untouched(run):
        part, steps, validations = _First(run.val_data, _STEPS), Durations(), Durations()
        features: list[float] = []

        def work() -> None:
            features.extend(map(rehearse, (run.train_data, run.val_data)))
            steps.mark()
            for batch in islice(_forever(run), 1 + _STEPS):  # memory grows in the first few
                try_step(run, batch)
                steps.mark()
            validations.mark()
            for _ in range(3):  # the first one starts workers and warms up
                validate(run, part)
                validations.mark()
            run.save_seconds = time_saving(run)

        peak = peak_of(work, run.world.device)
    validation = validations.usual() * run.val_data.steps / min(_STEPS, run.val_data.steps)
    whole_model = getattr(run.val_data, "sample_seconds", 0.0)
    line = title(run, splits)
    run.folder, run.sample_seconds = Path(), max(validation / len(run.val_data.dataset), whole_model)
    return Plan(
        config=run.config,
        title=line,
        counts={split: len(samples) for split, samples in splits},
        parameters=sum(p.numel() for p in run.model.parameters()),
        learning=sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        steps=run.length.total if isinstance(run.length, Steps) else 0,
        steps_per_epoch=run.train_data.steps,
        peak=peak + end_memory(run),
        capacity=capacity(run.world.device),
        warm_up_seconds=steps.warm_up() + validations.warm_up() + sum(features),
        step_seconds=steps.usual(),
        validation_seconds=validation,
        finish_seconds=run.finish_seconds(),
    )


def rehearse(data: BatchLoader) -> float:
    """Return the seconds of computing the features of a data set once; 0 if the run does not."""
    return data.rehearse() if hasattr(data, "rehearse") else 0.0  # pyright: ignore[reportAttributeAccessIssue]


def end_memory(run: Trainer) -> int:
    """Return the bytes that a run needs above those measured: its libraries and, on a GPU, the evaluated model."""
    weights = sum(value.numel() * value.element_size() for value in run.model.state_dict().values())
    return weights if run.world.device.type == "cuda" else _LIBRARIES


def time_saving(run: Trainer) -> float:
    """Return the seconds of writing the best weights, a state and the last weights, into a folder that is removed."""
    if run.world.size > 1:
        return 0.0
    place = Path(run.config.out or ".").absolute()
    with TemporaryDirectory(dir=next(folder for folder in (place, *place.parents) if folder.is_dir())) as folder:
        run.folder, start = Path(folder), time.monotonic()
        run.keep_weights({})
        run.save()
        run.save_last()
        run.folder = None
        return time.monotonic() - start


class Notes(NullReporter):
    """Reporter that keeps the messages: the chosen model, the recipe, advice."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """Keep a message."""
        self.texts.append(text)


class Durations:
    """Seconds between marks, of which the first are those of a warm-up."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def mark(self) -> None:
        """Note the time."""
        self.marks.append(time.monotonic())

    def usual(self) -> float:
        """Return the mean time between two marks after the warm-up."""
        return (self.marks[-1] - self.marks[1]) / (len(self.marks) - 2)

    def warm_up(self) -> float:
        """Return the additional time of the first interval."""
        return max(self.marks[1] - self.marks[0] - self.usual(), 0.0)


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
