"""Evaluations of every task as JSON files."""

import json
from os import PathLike
from pathlib import Path

from vitrail.atomic_io import write_file
from vitrail.errors import DataError
from vitrail.tasks import DEFAULT, find_task
from vitrail.tasks.results import Evaluation


def save_evaluation(evaluation: Evaluation, path: str | PathLike[str]) -> Path:
    """Write an evaluation atomically."""
    write_file(Path(path), json.dumps(evaluation.to_dict(), allow_nan=False).encode())
    return Path(path)


def read_evaluation(path: str | PathLike[str]) -> Evaluation:
    """Read an evaluation of any task; a file without a task is of the default one.

    Raises:
        DataError: the file is not an evaluation.
    """
    try:
        values = json.loads(Path(path).read_bytes())
        return find_task(values.get("task", DEFAULT)).read_evaluation(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not an evaluation that `vitrail evaluate --out` wrote: {error!r}") from error
