"""Runs of a folder as a table, and the differences of their configs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vitrail.errors import DataError, VitrailError
from vitrail.report.run_folder import METRICS, RecordedRun, read_run, task_of_config
from vitrail.tasks.formatting import duration, format_value
from vitrail.tasks.table import Table
from vitrail.training.config import config_class
from vitrail.training.run_dir import CONFIG, SUMMARY

_NOT_COMPARED = ("out", "resume", "dry_run")


@dataclass(frozen=True)
class RunRow:
    """The figures of a run in a table.

    Args:
        folder: the run folder.
        task: its task.
        model: name of the variant.
        data: training data.
        metric: title of the metric that selects the best weights.
        best: its value: of the final evaluation, or of the best validation so far; None if there is none.
        shown: the value with its unit.
        rank: the value, negative if lower is better: a larger one is a better run.
        split: split of the value.
        state: `finished`, or the epochs done.
        seconds: time of training.
        changed: time of the last change, in seconds since 1970.
        fault: reason why it cannot be read.
    """

    folder: Path
    task: str = ""
    model: str = ""
    data: str = ""
    metric: str = ""
    best: float | None = None
    shown: str = "–"
    rank: float = 0.0
    split: str = ""
    state: str = ""
    seconds: float = 0.0
    changed: float = 0.0
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"folder": str(self.folder)}


def find_runs(root: Path, depth: int = 4) -> Iterator[Path]:
    """Yield the run folders at most `depth` levels below a folder, which may be one itself.

    Raises:
        VitrailError: there is no such folder.
    """
    if not root.is_dir():
        raise VitrailError(f"There is no folder {root}. Runs are in runs/, or where --out of `vitrail train` named.")
    for place, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if CONFIG in files and (METRICS in files or SUMMARY in files):
            names[:] = [name for name in names if name.startswith("fold")]  # folds of a cross-validation
            yield Path(place)
        elif len(Path(place).relative_to(root).parts) >= depth:
            names[:] = []


def run_row(folder: Path) -> RunRow:
    """Read the figures of a run; one that cannot be read gets the reason."""
    changed = max(path.stat().st_mtime for path in folder.iterdir() if path.is_file())
    try:
        run = read_run(folder)
    except DataError as error:
        return RunRow(folder, changed=changed, fault=str(error).partition("\n")[0])
    spec, summary = run.metrics[0], run.summary
    best, split = best_value(run)
    total = run.config.get("epochs")
    done = run.epochs[-1].get("epoch") if run.epochs else 0
    state = "finished" if summary else f"epoch {done:g}" + (f" of {total}" if total else "")
    seconds = summary.get("seconds") or (run.epochs[-1].get("seconds") if run.epochs else 0.0)
    return RunRow(
        folder=folder,
        task=task_of_config(run.config),
        model=str(summary.get("model") or run.config.get("model", "")),
        data=str(run.config.get("data", "")),
        metric=spec.title,
        best=best,
        shown=spec.format(best),
        rank=(best or 0.0) * (1 if spec.higher_is_better else -1),
        split=split,
        state=state,
        seconds=float(seconds or 0.0),
        changed=changed,
    )


def best_value(run: RecordedRun) -> tuple[float | None, str]:
    """Return the first metric of a run and its split: of the evaluation, else of the best validation so far."""
    spec = run.metrics[0]
    value = run.summary.get(spec.name)
    if value is not None:
        return float(value), str(run.summary.get("split", ""))
    known = [float(row[spec.name]) for row in run.epochs if row.get(spec.name) is not None]
    return ((max if spec.higher_is_better else min)(known), "val") if known else (None, "")


def runs_table(rows: Sequence[RunRow], root: Path) -> Table:
    """Return a run per row; folders are relative to `root`."""
    columns = ["run", "task", "model", "data", "metric", "best", "split", "time", "state"]
    cells = [
        [
            os.path.relpath(row.folder, root),
            row.task,
            row.model,
            row.data,
            row.metric,
            row.shown,
            row.split,
            duration(row.seconds) if row.seconds else "–",
            row.fault or row.state,
        ]
        for row in rows
    ]
    return Table("", columns, cells, right=["best"])


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[object]]]:
    """Return the fields in which configs differ, each with its value in every config.

    A field that a config does not state has the default of its task.

    Example:
        >>> differences([{"lr": 0.1, "seed": 1}, {"lr": 0.2, "seed": 1}])
        [('lr', [0.1, 0.2])]
    """
    whole = [_whole(config) for config in configs]
    names = dict.fromkeys(name for config in whole for name in config if name not in _NOT_COMPARED)
    rows: list[tuple[str, list[object]]] = [(name, [config.get(name) for config in whole]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def differences_table(names: Sequence[str], found: Sequence[tuple[str, list[object]]]) -> Table:
    """Return a differing field per row and a run per column."""
    return Table("", ["field", *names], [[name, *map(format_value, values)] for name, values in found])


def _whole(config: Mapping[str, Any]) -> dict[str, Any]:
    default = {each.name: each.default for each in fields(config_class(task_of_config(config)))}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in default.items()}
    return {**plain, **config}
