"""Trackio, the local tracker of Hugging Face."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

from vitrail.training.trackers.tracker import TrackedRun


class TrackioTracker:
    """A run of Trackio, which keeps it on this machine.

    Args:
        trackio: the package.
        identity: name of the run.
    """

    def __init__(self, trackio: ModuleType, identity: str):
        self.trackio, self.identity = trackio, identity

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send metrics of a step."""
        self.trackio.log(dict(values), step=step)

    def finish(self) -> None:
        """Close the run."""
        self.trackio.finish()


def connect(run: TrackedRun) -> TrackioTracker:
    """Begin a run, or continue that of `run.identity`."""
    trackio = import_module("trackio")
    name = run.identity or run.name
    trackio.init(project=run.project, name=name, config=dict(run.config), resume="allow")
    return TrackioTracker(trackio, name)
