"""Weights & Biases."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vitrail.training.trackers.tracker import TrackedRun


class WandbTracker:
    """A run of Weights & Biases; `WANDB_MODE=offline` keeps it on this machine.

    Args:
        run: the run that `wandb.init` returned.
    """

    def __init__(self, run: Any):
        self.run, self.identity = run, str(run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send metrics of a step."""
        self.run.log(dict(values), step=step)

    def finish(self) -> None:
        """Close the run."""
        self.run.finish()


def connect(run: TrackedRun) -> WandbTracker:
    """Begin a run, or continue that of `run.identity`."""
    wandb = import_module("wandb")
    known = {} if run.identity is None else {"id": run.identity, "resume": "allow"}
    return WandbTracker(
        wandb.init(project=run.project, name=run.name, config=dict(run.config), dir=str(run.folder), **known)
    )
