"""Prediction on a Ray cluster: inputs are spread over its machines, results come back to one writer.

If a machine is lost, Ray computes its blocks again on another one. Results are written by this process alone, and a
name that came before is an error; so every input is in the output exactly once.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import OutOfMemoryError

from vitrail.data.image_io import ImageDecodeError, open_image
from vitrail.errors import DataError, ResourceError, VitrailError
from vitrail.inference.image_tables import TableImage, TablePart, read_part, table_files, table_parts
from vitrail.inference.model_loading import find_model, task_of
from vitrail.tasks import find_options, find_task
from vitrail.tasks.image_sources import SourceImage


class RayJob(NamedTuple):
    """What every worker needs to build its predictor.

    Args:
        model: a model folder or run folder that all machines can read, or a hub id.
        weights: checkpoint, if the model is a name in the catalogue.
        device: device of the workers; `auto` is a GPU if the worker got one.
        options: fields of the task's `PredictOptions`.
    """

    model: str
    weights: str | None
    device: str
    options: dict[str, Any]


@dataclass(frozen=True)
class RemoteResult:
    """A result that was computed by a worker.

    Args:
        path: name of the input.
        error: reason why it could not be read.
        text: the result in a line.
        row: cells of a CSV row.
        values: plain values.
    """

    path: str
    error: str | None
    text: str
    row: tuple[str, ...]
    values: dict[str, Any]

    def renamed(self, path: str) -> "RemoteResult":
        """Return the result under another name of its input."""
        if path == self.path:
            return self
        return replace(
            self, path=path, values={**self.values, "path": path}, text=self.text.replace(self.path, path, 1)
        )

    def cells(self) -> tuple[str, ...]:
        """Return the cells of a CSV row."""
        return self.row

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return self.values

    def draw(self) -> Image.Image:
        """Refuse: the input is on another machine.

        Raises:
            VitrailError: always.
        """
        raise VitrailError("Results of a cluster are not drawn. Predict the images of interest on this machine.")

    def save(self, folder: Path) -> list[Path]:
        """Write nothing; the command refuses --save with this engine."""
        return []

    def __str__(self) -> str:
        return self.text


class RayPredictor:
    """A worker: holds a model and predicts blocks of inputs.

    Args:
        job: model and options.
    """

    def __init__(self, job: RayJob):
        self.fault: VitrailError | None = None
        try:
            model = find_model(job.model, job.weights, job.device)
            name = task_of(model)
            self.task = find_task(name)
            self.predictor = self.task.predictor(model, find_options(name).PredictOptions(**job.options), None)
        except VitrailError as error:  # raised here, it would reach the command as an error of Ray
            self.fault = error

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a JSON text for each row of a block of `TableImage`, or of names that are paths.

        An error of ours becomes the result of every row, which `_from_text` raises in the process of the command.
        """
        names = [str(name) for name in block["name"]]
        try:
            texts = self._predict(names, block)
        except VitrailError as error:
            texts = [_fault_to_text(error)] * len(names)
        except (MemoryError, OutOfMemoryError) as error:
            full = ResourceError(f"A worker is out of memory: {str(error)[:200]}\nUse a smaller --batch.")
            texts = [_fault_to_text(full)] * len(names)
        return {"name": np.array(names), "result": np.array(texts)}

    def _predict(self, names: list[str], block: dict[str, np.ndarray]) -> list[str]:
        if self.fault is not None:
            raise self.fault
        fault = next((str(text) for text in block.get("fault", ()) if text), None)
        if fault is not None:
            raise DataError(fault)
        held = [block[key] for key in ("data", "file", "reason")] if "data" in block else []
        loaded = [self._load(TableImage(name, *(cells[i] for cells in held))) for i, name in enumerate(names)]
        good = [one for one in loaded if _is_good(one)]
        results = iter(self.predictor.predict(good) if good else ())
        return [_to_text(next(results) if _is_good(one) else self._failure(*one)) for one in loaded]

    def _load(self, row: TableImage) -> tuple[Any, Any]:
        """Return the input of a row with its image, or with the reason why it has none."""
        item: Any = SourceImage(row.name, partial(_decode, row, getattr(self.predictor, "prepare", None)))
        try:
            if not any(row[1:]):
                [item] = self.task.collect([row.name])
        except VitrailError as error:  # the file went away, or this machine does not see it
            return item, error
        try:
            return item, self.predictor.load(item)
        except DataError as error:
            return item, error

    def _failure(self, item: Any, error: VitrailError) -> Any:
        return self.predictor.failure(item, error.reason if isinstance(error, ImageDecodeError) else str(error))


def _is_good(loaded: tuple[Any, Any]) -> bool:
    return not isinstance(loaded[1], VitrailError)


def check_ray() -> None:
    """Check that Ray can be used.

    Raises:
        VitrailError: it is missing.
    """
    if find_spec("ray") is None:
        raise VitrailError("--engine ray needs Ray, which is missing: pip install 'ray[data]' aiohttp")


def option_values(task: str, options: object) -> dict[str, Any]:
    """Return the fields of a task's `PredictOptions` from an object that has them.

    Example:
        >>> option_values("classify", find_options("classify").PredictOptions(top=3))["top"]
        3
    """
    return {each.name: getattr(options, each.name) for each in fields(find_options(task).PredictOptions)}


def ray_predictions(
    job: RayJob, names: Sequence[str], tables: Sequence[str] = (), batch: int = 32, workers: int = 0
) -> Iterator[RemoteResult]:
    """Yield the result of each input once, in any order.

    Args:
        job: model and options.
        names: paths that all machines can read.
        tables: parquet files, patterns or folders of them, also at addresses such as s3://bucket/images, with a column
            of encoded images, of Hugging Face's images or of paths, and perhaps one of names; see `image_tables`.
        batch: inputs in a batch.
        workers: models at work in the cluster; 0 is one per GPU, or one per machine without GPUs.

    Raises:
        VitrailError: Ray is missing, a table has no such columns, or a worker cannot build its model.
        DataError: a table cannot be read, or two inputs have the same name.
    """
    check_ray()
    parts = table_parts(table_files(tables)) if tables else []
    _connect()
    data = import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    sets = [data.from_items([{"name": name} for name in names])] if names else []
    gpus = int(import_module("ray").cluster_resources().get("GPU", 0))
    machines = len([node for node in import_module("ray").nodes() if node["Alive"]])
    count = workers or gpus or machines
    if parts:  # without a CPU of their own: readers wait for disks, and are not joined to a worker
        readers = min(2 * count, len(parts))
        listed = data.from_items([part._asdict() for part in parts])
        sets.append(listed.flat_map(_rows, num_cpus=0, compute=data.TaskPoolStrategy(size=readers)))
    seen: set[str] = set()
    for each in sets:
        predicted = each.map_batches(
            RayPredictor,
            fn_constructor_args=(job,),
            batch_size=batch,
            compute=data.ActorPoolStrategy(size=count),
            num_gpus=1 if gpus else 0,
        )
        for row in predicted.iter_rows():
            result = _from_text(row["result"])
            if result.path in seen:
                raise DataError(
                    f"Two inputs are called {result.path}; their results could not be told apart.\n"
                    "Give tables a column of names (name) that differ, or predict their files into several --out."
                )
            seen.add(result.path)
            yield result


def _connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, or start Ray on this machine; nothing is reported to anybody."""
    ray = import_module("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        place = os.environ.get("RAY_ADDRESS")
        if place is None:
            raise
        reason = str(error).partition("\n")[0][:200]
        raise VitrailError(
            f"There is no Ray cluster at RAY_ADDRESS={place}: {reason}\n"
            "Start one (ray start --head), or unset RAY_ADDRESS to use this machine."
        ) from error


def _rows(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the images of a `TablePart`; an error of ours becomes a row, as Ray would wrap an exception."""
    try:
        for image in read_part(TablePart(**part)):
            yield {**image._asdict(), "fault": ""}
    except VitrailError as error:
        yield {**TableImage(part["file"])._asdict(), "fault": str(error)}


def _decode(row: TableImage, prepare: Any) -> Image.Image:
    if row.reason:
        raise ImageDecodeError(row.name, row.reason, "missing")
    return open_image(bytes(row.data) or row.file, getattr(prepare, "mode", "RGB"), name=row.name)


def _to_text(result: Any) -> str:
    row = [] if result.error is not None else list(result.cells())
    return json.dumps([result.path, result.error, str(result), row, result.to_dict()])


def _fault_to_text(error: VitrailError) -> str:
    return json.dumps({"fault": str(error), "exit_code": error.exit_code})


def _from_text(text: str) -> RemoteResult:
    """Return a result of a worker, or raise its fault.

    Raises:
        VitrailError: the worker failed.
    """
    values = json.loads(text)
    if isinstance(values, dict):
        kinds = {kind.exit_code: kind for kind in (DataError, ResourceError)}
        raise kinds.get(values["exit_code"], VitrailError)(values["fault"])
    path, error, line, row, values = values
    return RemoteResult(path, error, line, tuple(row), values)
