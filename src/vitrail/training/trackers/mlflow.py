"""MLflow."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

from vitrail.training.trackers.tracker import TrackedRun

_LONGEST = 500
"""Most characters of a parameter."""


class MlflowTracker:
    """A run of MLflow, at the address of `MLFLOW_TRACKING_URI` or in `mlruns`.

    Args:
        mlflow: the package.
        identity: id of the run.
    """

    def __init__(self, mlflow: ModuleType, identity: str):
        self.mlflow, self.identity = mlflow, identity

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send metrics of a step."""
        self.mlflow.log_metrics({name: float(value) for name, value in values.items()}, step=step)

    def finish(self) -> None:
        """Close the run."""
        self.mlflow.end_run()


def connect(run: TrackedRun) -> MlflowTracker:
    """Begin a run with the config as its parameters, or continue that of `run.identity`."""
    mlflow = import_module("mlflow")
    mlflow.set_experiment(run.project)
    if run.identity is not None:
        return MlflowTracker(mlflow, mlflow.start_run(run_id=run.identity).info.run_id)
    begun = mlflow.start_run(run_name=run.name)
    mlflow.log_params({name: str(value)[:_LONGEST] for name, value in run.config.items()})
    return MlflowTracker(mlflow, begun.info.run_id)
