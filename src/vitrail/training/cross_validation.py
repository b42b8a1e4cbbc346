"""Cross-validation: a run for each fold of the training samples, and a summary of their figures."""

import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from vitrail.errors import VitrailError
from vitrail.tasks import find_task
from vitrail.tasks.skipped import NAMED, skipped_sentence
from vitrail.tasks.table import Table
from vitrail.training.config import RunConfig
from vitrail.training.lock import locked
from vitrail.training.reporters import NullReporter, Reporter
from vitrail.training.run_dir import (
    CONFIG,
    SUMMARY,
    changed_fields,
    new_folder,
    read_config,
    refuse_changes,
    write_config,
    write_summary,
)
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train


@dataclass(frozen=True)
class CrossValidation:
    """Figures of the folds, each measured on samples that its run was not trained on.

    The best epoch of a fold is chosen on the same samples, as in any run without a test split.

    Args:
        task: name of the task.
        model: name of the variant.
        data: training data.
        metrics: for each metric its value in every fold.
        seconds: time of all folds.
        folder: folder of the runs.
        skipped: for each fold the number of samples that its run left out; the folds share most of them.
        skipped_names: the first of them.
    """

    task: str
    model: str
    data: str
    metrics: dict[str, list[float]]
    seconds: float
    folder: str
    skipped: tuple[int, ...] = ()
    skipped_names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: each metric as the mean of the folds, its standard deviation, and the values."""
        flat: dict[str, Any] = {"task": self.task, "model": self.model, "data": self.data, "split": "folds"}
        for name, values in self.metrics.items():
            flat |= {name: mean(values), f"{name}_std": _std(values), f"{name}_folds": values}
        left_out = {"skipped_folds": list(self.skipped), "skipped_names": list(self.skipped_names)}
        return {**flat, "seconds": self.seconds, "folder": self.folder, **(left_out if any(self.skipped) else {})}

    def table(self) -> Table:
        """Return a fold per row, the mean with the standard deviation over the folds, and what was left out."""
        specs = [spec for spec in find_task(self.task).metrics if spec.name in self.metrics]
        count = len(next(iter(self.metrics.values())))
        rows = [[str(i), *(spec.format(self.metrics[spec.name][i]) for spec in specs)] for i in range(count)]
        rows.append(["mean", *(spec.format(mean(self.metrics[spec.name])) for spec in specs)])
        rows.append(["std", *(spec.format(_std(self.metrics[spec.name])) for spec in specs)])
        titles, left_out = [spec.title for spec in specs], max(self.skipped, default=0)
        note = skipped_sentence(left_out, self.skipped_names[:left_out], "sample").strip()
        return Table("", ["fold", *titles], rows, right=titles, notes=[note] if note else [])


def cross_validate(
    config: RunConfig, reporter: Reporter | None = None, stop: StopRequest | None = None, command: str | None = None
) -> CrossValidation:
    """Train a run for each of `config.folds`, in folders `fold-0`, `fold-1`, ... of one folder, and summarise.

    With `resume="auto"` finished folds are kept, and the interrupted one continues.

    Raises:
        VitrailError: the config cannot be run, or this is one of several processes.
        Interrupted: a stop was requested.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise VitrailError("Under torchrun the folds are started one by one: --folds 5 --fold 0, --fold 1, ...")
    reporter, stop = reporter or NullReporter(), stop or StopRequest()
    root = _root(config)
    found = []
    with locked(root):
        for number in range(config.folds):
            place = root / f"fold-{number}"
            if (place / SUMMARY).is_file():
                found.append(json.loads((place / SUMMARY).read_bytes()))
                continue
            reporter.note(f"Fold {number + 1} of {config.folds}.")
            one = replace(config, fold=number, out=str(place), resume="auto")
            try:
                found.append(train(one, reporter, stop, command).to_dict())
            except Interrupted as stopped:
                raise Interrupted(stopped.code, str(root)) from stopped
        result = _summarize(config, found, root)
        write_summary(root, result.to_dict())
    return result


def _summarize(config: RunConfig, found: list[dict[str, Any]], root: Path) -> CrossValidation:
    """Return the figures of the folds from their summaries."""
    names = [spec.name for spec in find_task(config.task).metrics] + ["loss"]
    return CrossValidation(
        task=config.task,
        model=found[0]["model"],
        data=config.data,
        metrics={
            name: [one[name] for one in found] for name in names if all(one.get(name) is not None for one in found)
        },
        seconds=sum(one["seconds"] for one in found),
        folder=str(root),
        skipped=tuple(one.get("skipped", 0) for one in found),
        skipped_names=tuple(dict.fromkeys(name for one in found for name in one.get("skipped_names", ())))[:NAMED],
    )


def _root(config: RunConfig) -> Path:
    """Return the folder of the folds: a new one, or that of `out` to continue.

    Raises:
        VitrailError: the folds of `out` were begun with another config.
    """
    if config.resume == "auto" and config.out is not None and (Path(config.out) / CONFIG).is_file():
        stored = read_config(Path(config.out))
        names = {field.name for field in fields(config)} - {"fold"}
        refuse_changes(config, stored, changed_fields(config, stored, names))
        return Path(config.out)
    root = new_folder(replace(config, resume=None))
    write_config(root, replace(config, out=str(root), resume=None))
    return root


def _std(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
