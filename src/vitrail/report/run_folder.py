"""Reader of run folders, finished or not; missing files are skipped."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from vitrail.errors import DataError, VitrailError
from vitrail.tasks import DEFAULT, TASKS, find_task
from vitrail.tasks.evaluation_file import read_evaluation
from vitrail.tasks.results import Evaluation
from vitrail.tasks.task import MetricSpec
from vitrail.training.config import config_class
from vitrail.training.run_dir import CONFIG, ENVIRONMENT, EVALUATION, SUMMARY
from vitrail.weights.folder import is_model_folder, model_folder

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class RecordedRun:
    """Results of a run.

    Args:
        name: display name.
        config: training settings by name.
        steps: a row per update: `step`, `epoch`, `loss`, `lr`.
        epochs: a row per validation: `step`, `epoch`, `train_loss`, `val_loss`, and the metrics of the task.
        summary: final metrics; empty while the run is in progress.
        machine: system information.
        evaluation: evaluation of the best weights, if there is one.
        model: its model folder, if there is one.
        command: command line that reproduces it.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Mapping[str, Any], ...] = ()
    epochs: tuple[Mapping[str, Any], ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    model: Path | None = None
    command: str = ""

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Metrics of its task."""
        return find_task(task_of_config(self.config)).metrics

    @property
    def finished(self) -> bool:
        """Whether the run has finished; true for a model that was only evaluated."""
        return bool(self.summary) or not (self.config or self.steps)


def read_run(folder: str | Path) -> RecordedRun:
    """Read a run folder.

    Raises:
        VitrailError: the folder holds no run.
        DataError: a file of it is damaged.
    """
    folder = Path(folder)
    known = [name for name in (CONFIG, METRICS, SUMMARY, EVALUATION) if (folder / name).is_file()]
    if not known:
        raise VitrailError(
            f"{folder} is not a run folder: it has neither {CONFIG}, {METRICS}, {SUMMARY} nor {EVALUATION}.\n"
            "Give the folder that `vitrail train` wrote."
        )
    config = _read_config(folder / CONFIG)
    machine = _read_json(folder / ENVIRONMENT)
    rows = _read_rows(folder / METRICS)
    best = Path(model_folder(str(folder)))
    return RecordedRun(
        name=folder.resolve().name,
        config=config,
        steps=tuple(row for row in rows if row.get("kind") == "step"),
        epochs=tuple(row for row in rows if row.get("kind") == "epoch"),
        summary=_read_json(folder / SUMMARY),
        machine=machine,
        evaluation=read_evaluation(folder / EVALUATION) if EVALUATION in known else None,
        model=best if is_model_folder(best) else None,
        command=_command(best, config, machine),
    )


def task_of_config(config: Mapping[str, Any]) -> str:
    """Return the task of a config; the default task if it has none or an unknown one.

    Example:
        >>> task_of_config({"task": "detect"}), task_of_config({})
        ('detect', 'classify')
    """
    task = config.get("task", DEFAULT)
    return task if task in TASKS else DEFAULT


def train_command(config: Mapping[str, Any]) -> str:
    """Return the training command for a config: its non-default values, quoted for a shell.

    The output folder is omitted, so that a repeated run gets a new one.

    Example:
        >>> train_command({"data": "my digits", "epochs": 3, "compile": True, "set": ["dim=48", "depths=2,2"]})
        "vitrail train --data 'my digits' --set dim=48 depths=2,2 --epochs 3 --compile"
    """
    words = ["vitrail", "train"]
    for each in fields(config_class(task_of_config(config))):
        value = config.get(each.name, each.default)
        flag = each.name.replace("_", "-")
        value = tuple(value) if isinstance(value, list) else value
        if each.name in ("out", "resume", "dry_run") or value is None or value == each.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def _command(best: Path, config: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Return the recorded command line if it starts a run; else an equivalent command."""
    noted = machine.get("command")
    if not noted and is_model_folder(best):
        noted = _read_json(best / "manifest.json").get("command")
    if noted and "--resume" not in str(noted):
        return str(noted)
    return train_command(config) if config else str(noted or "")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    return _mapping(path, values)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return _mapping(path, json.loads(path.read_bytes()))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines; an incomplete last line, which is still being written, is skipped."""
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            rows.append(_mapping(path, json.loads(line)))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}, line {number} is not JSON: {error}") from error
    return rows


def _mapping(path: Path, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise DataError(f"{path} holds a {type(values).__name__}; names with values are needed.")
    return values
