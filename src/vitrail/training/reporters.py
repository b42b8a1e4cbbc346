"""Progress reporters: no output, plain lines, or a live bar on a terminal."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class StepStats:
    """Statistics of an update.

    Args:
        step: updates done.
        epoch: epochs done, with the part of the current one: 2.5 is the middle of the third.
        share: share of the run that is done.
        loss: loss of the update.
        rate: learning rate of the update.
        weight: weight of the update: its images or tokens.
        finish: estimated seconds from the last update to the end: evaluation of the best weights and report.
    """

    step: int
    epoch: float
    share: float
    loss: float
    rate: float
    weight: float
    finish: float = 0.0


class Reporter(Protocol):
    """Receiver of the progress of a run."""

    def note(self, text: str) -> None:
        """Report a message."""
        ...

    def begin(self, title: str, unit: str) -> None:
        """Called before the first update; `unit` is the plural noun of the weight: images, tokens."""
        ...

    def step(self, moment: StepStats) -> None:
        """Called after an update."""
        ...

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Called after a validation."""
        ...

    def end(self) -> None:
        """Called after the last update, or if the run stops."""
        ...


class NullReporter:
    """Reporter without output."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def begin(self, title: str, unit: str) -> None:
        """Do nothing."""

    def step(self, moment: StepStats) -> None:
        """Do nothing."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class Throughput:
    """Throughput and remaining time, measured since the start or resume of the run."""

    def __init__(self) -> None:
        self.unit = "samples"
        self._start: tuple[float, float] | None = None
        self._weight = 0.0
        self.share = 0.0
        self.finish = 0.0

    def take(self, moment: StepStats) -> None:
        """Count an update; the first one, which warms up, only starts the clock."""
        if self._start is None:
            self._start = (time.monotonic(), moment.share)
        else:
            self._weight += moment.weight
        self.share, self.finish = moment.share, moment.finish

    def rate(self) -> float:
        """Return the throughput."""
        seconds = time.monotonic() - self._start[0] if self._start else 0.0
        return self._weight / seconds if seconds > 0 else 0.0

    def left(self) -> float | None:
        """Return the remaining seconds with the final evaluation and the report, or None while they are unknown."""
        if self._start is None or self.share <= self._start[1]:
            return None
        passed = time.monotonic() - self._start[0]
        return passed / (self.share - self._start[1]) * (1 - self.share) + self.finish


class LineReporter:
    """Plain lines, one for each validation and one every `interval` seconds between; for logs and pipes.

    Args:
        interval: seconds between two lines about steps.
    """

    def __init__(self, interval: float = 30.0):
        self.interval = interval
        self.pace = Throughput()
        self._next = 0.0

    def note(self, text: str) -> None:
        """Print the text."""
        print(text, flush=True)

    def begin(self, title: str, unit: str) -> None:
        """Print the title."""
        self.pace.unit = unit
        print(title, flush=True)
        self._next = time.monotonic() + self.interval

    def step(self, moment: StepStats) -> None:
        """Print a line if the interval has passed."""
        self.pace.take(moment)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.interval
            print(f"step {moment.step}  epoch {moment.epoch:.2f}  {describe(moment, self.pace)}", flush=True)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Print the metrics."""
        print("  ".join([describe_epoch(row), *_so_far(self.pace)]), flush=True)
        self._next = time.monotonic() + self.interval

    def end(self) -> None:
        """Do nothing."""


class BarReporter:
    """A live bar on a terminal, and one lasting line for each validation."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.pace = Throughput()
        self._console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"))
        self._progress = Progress(*columns, TextColumn("{task.fields[facts]}"), console=self._console, transient=True)
        self._task = self._progress.add_task("training", total=1.0, facts="")
        self._next = 0.0

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._console.print(text, highlight=False, markup=False)

    def begin(self, title: str, unit: str) -> None:
        """Print the title and show the bar."""
        self.pace.unit = unit
        self._console.print(title, style="bold", markup=False)
        self._progress.start()

    def step(self, moment: StepStats) -> None:
        """Move the bar, a few times a second."""
        self.pace.take(moment)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.2
            facts = describe(moment, self.pace)
            self._progress.update(
                self._task, completed=moment.share, description=f"epoch {moment.epoch:.1f}", facts=facts
            )

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Print the metrics above the bar."""
        self.note(describe_epoch(row))

    def end(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def describe(moment: StepStats, pace: Throughput) -> str:
    """Format the statistics of an update and the progress of the run."""
    memory = f"{memory_in_use() / 2**20:,.0f} MB"
    return "  ".join([f"loss {moment.loss:.4f}  lr {moment.rate:.2e}", memory, *_so_far(pace)])


def _so_far(pace: Throughput) -> list[str]:
    """Format throughput and remaining time, each once it is known."""
    rate, left = pace.rate(), pace.left()
    return [f"{rate:,.0f} {pace.unit}/s"] * (rate > 0) + [f"ETA {clock(left)}"] * (left is not None)


BOOKKEEPING = ("step", "epoch", "train_loss", "val_loss", "lr", "seconds", "best")
"""Columns of a validation in every task; the others are metrics of the task."""


def describe_epoch(row: Mapping[str, Any]) -> str:
    """Format the row of a validation as a line."""
    star = " *" if row["best"] else ""
    metrics = "".join(
        f"  {name} {value:.4f}" for name, value in row.items() if name not in BOOKKEEPING and value is not None
    )
    return (
        f"epoch {row['epoch']:>4.4g}  train {row['train_loss']:.4f}  val {row['val_loss']:.4f}"
        f"{metrics}  lr {row['lr']:.2e}{star}"
    )


def clock(seconds: float | None) -> str:
    """Format seconds as minutes or hours.

    Example:
        >>> clock(75), clock(3700), clock(None)
        ('1:15', '1:01:40', '?')
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def memory_in_use() -> int:
    """Return the memory in use in bytes: of the GPU if one is used, else resident memory of this process.

    Example:
        >>> memory_in_use() > 1_000_000
        True
    """
    import torch

    from vitrail.machine.host_memory import resident

    return torch.cuda.memory_allocated() if torch.cuda.is_initialized() else resident()
