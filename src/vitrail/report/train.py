"""`vitrail.train`: train from Python as the command does, and keep the results at hand."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from vitrail.errors import VitrailError, unknown
from vitrail.inference.model_loading import find_model
from vitrail.inference.predict import predict
from vitrail.parts.model import Model
from vitrail.report.html_page import write_report
from vitrail.tasks import DEFAULT
from vitrail.training.aliases import field_of
from vitrail.training.config import config_class
from vitrail.training.reporters import LineReporter, NullReporter, Reporter
from vitrail.training.train import Summary
from vitrail.training.train import train as run_training


@dataclass(frozen=True)
class Run:
    """Result of a training.

    Args:
        folder: the run folder, with config, log, weights, evaluation.
        summary: what `summary.json` holds.

    Attributes:
        metrics: metrics of the best weights on the test split, or the val split if there is no test split.
        weights: model folder of the best weights.
    """

    folder: Path
    summary: Summary
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Metrics of the best weights, and `loss`."""
        return self.summary.metrics

    @property
    def weights(self) -> Path:
        """Model folder of the best weights."""
        return self.folder / "weights" / "best"

    @property
    def model(self) -> Model:
        """The trained model, with its best weights, in evaluation mode."""
        if "model" not in self._loaded:
            self._loaded["model"] = find_model(self.weights)
        return self._loaded["model"]

    def predict(self, inputs: object, **options: Any) -> list[Any]:
        """Predict with the best weights; see `vitrail.predict`."""
        return predict(self.model, inputs, **options)

    def report(self) -> Path:
        """Write the HTML report into the run folder, and return its path."""
        return write_report(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return asdict(self.summary)


def train(
    data: str | PathLike[str],
    model: str = "auto",
    *,
    weights: str | PathLike[str] | None = None,
    task: str = DEFAULT,
    reporter: Reporter | None = None,
    verbose: bool = False,
    **options: Any,
) -> Run:
    """Train a model, and return its run; the defaults are those of `vitrail train`.

    Args:
        data: training data: a folder of class folders, a table, a tar, or the name of a known data set (digits).
        model: name in the catalogue; auto takes that of the weights, else one for this machine and data.
        weights: weights to start from: a file, a model folder, a hub id, or `pretrained`.
        task: name of the task.
        reporter: receives progress; nothing is reported by default.
        verbose: print progress in lines.
        options: other flags of `vitrail train`, such as `epochs=10`, `lr=1e-4`, `imgsz=96`, `out="runs/a"`; `set` is a
            dict of fields of the model's config.

    Raises:
        VitrailError: an option is unknown or has an impossible value.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     small = {"dim": 16, "depth": 1, "num_heads": 2}
        ...     sizes = {"set": small, "imgsz": 16, "epochs": 1, "batch": 250}
        ...     run = train("digits", "vit_tiny_patch16_224", out=f"{place}/run", **sizes)
        ...     sorted(run.metrics), (run.weights / "config.json").exists(), run.model.config.dim
        (['loss', 'top1', 'top5'], True, 16)
    """
    kind = config_class(task)
    known = {entry.name for entry in fields(kind)}
    values: dict[str, Any] = {}
    for name, value in options.items():
        named = name if name in known else field_of(name)
        if named not in known:
            raise unknown("option of train", name, known, hint="Each flag of `vitrail train --help` is one.")
        values[named] = value
    if isinstance(values.get("set"), Mapping):
        values["set"] = tuple(f"{name}={_text(value)}" for name, value in values["set"].items())
    if values.get("dry_run"):
        raise VitrailError("dry_run is a flag of the command alone: vitrail train DATA --dry-run.")
    config = kind(data=fspath(data), model=model, weights=None if weights is None else fspath(weights), **values)
    summary = run_training(config, reporter or (LineReporter() if verbose else NullReporter()))
    return Run(Path(summary.folder), summary)


def _text(value: Any) -> str:
    """Format a value as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) + "," * (len(value) == 1)
    return str(value)
