"""Trackers: services that show the runs of a team. Each is an optional package, imported when a run uses it."""

TRACKERS = {"wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
"""Package that each tracker needs, by the name of its file in this folder."""
