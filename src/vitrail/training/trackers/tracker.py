"""The interface of a tracker, and the log that passes rows on to one."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vitrail.atomic_io import write_file
from vitrail.errors import VitrailError, unknown
from vitrail.training.log import Log
from vitrail.training.trackers import TRACKERS

IDENTITY = "tracker.txt"


class TrackedRun(NamedTuple):
    """A run as a tracker shows it.

    Args:
        project: name of the project, the task of the run.
        name: name of the run folder.
        folder: the run folder.
        config: settings of the run.
        identity: what the tracker called the run when it began, to continue it; None for a new one.
    """

    project: str
    name: str
    folder: Path
    config: Mapping[str, Any]
    identity: str | None


class Tracker(Protocol):
    """A connection to a service for one run."""

    identity: str | None
    """Name of the run in the service, to continue it."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send metrics of a step."""
        ...

    def finish(self) -> None:
        """Close the connection."""
        ...


class TrackedLog:
    """A log that also sends losses, rates and metrics to a tracker.

    Args:
        log: the log of the run folder, which stays the record of the run.
        tracker: the service.
    """

    def __init__(self, log: Log, tracker: Tracker):
        self.inner, self.tracker = log, tracker

    def step(self, row: Mapping[str, Any]) -> None:
        """Write one update."""
        self.inner.step(row)
        self.tracker.log({f"train/{name}": row[name] for name in ("loss", "lr", "grad_norm")}, row["step"])

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write one validation."""
        self.inner.epoch(row)
        left = ("step", "lr", "seconds", "best")
        values = {f"epoch/{name}": value for name, value in row.items() if name not in left and value is not None}
        self.tracker.log(values, row["step"])

    def flush(self) -> dict[str, int]:
        """Flush the files of the run folder."""
        return self.inner.flush()

    def close(self) -> None:
        """Close the files and the connection."""
        self.inner.close()
        self.tracker.finish()


def check_tracker(name: str) -> None:
    """Check that a tracker can be used, before a run begins.

    Raises:
        VitrailError: it is not known, or its package is missing.

    Example:
        >>> check_tracker("none") is None
        True
    """
    if name == "none":
        return
    if name not in TRACKERS:
        raise unknown("tracker", name, ("none", *TRACKERS))
    if find_spec(TRACKERS[name]) is None:
        raise VitrailError(f"track={name} needs the package {TRACKERS[name]}: pip install {TRACKERS[name]}")


def tracked(log: Log, name: str, folder: Path, config: Mapping[str, Any]) -> Log:
    """Return a log that also sends its rows to a tracker; `none` returns the log.

    The identity of the run is kept in its folder, so that a resumed run continues there too.
    """
    check_tracker(name)
    if name == "none":
        return log
    place = folder / IDENTITY
    identity = place.read_text(encoding="utf-8").strip() if place.is_file() else None
    run = TrackedRun(f"vitrail-{config.get('task', '')}", folder.name, folder, config, identity or None)
    tracker: Tracker = import_module(f"vitrail.training.trackers.{name}").connect(run)
    if tracker.identity:
        write_file(place, f"{tracker.identity}\n".encode())
    return TrackedLog(log, tracker)
