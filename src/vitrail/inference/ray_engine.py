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

from vitrail.data.image_io import ImageDecodeError, open_image
from vitrail.errors import DataError, VitrailError
from vitrail.inference.model_loading import find_model, task_of
from vitrail.tasks import find_options, find_task
from vitrail.tasks.image_sources import SourceImage

NAMES = ("name", "path", "file_name", "filename", "id")
IMAGES = ("image", "bytes", "img", "picture")


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
        model = find_model(job.model, job.weights, job.device)
        name = task_of(model)
        self.task = find_task(name)
        self.predictor = self.task.predictor(model, find_options(name).PredictOptions(**job.options), None)

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a JSON text for each row of a block with the column `name`, and `data` if it holds the images."""
        encoded = block.get("data")
        items = [self._item(str(name), None if encoded is None else encoded[i]) for i, name in enumerate(block["name"])]
        loaded = [self._load(item) for item in items]
        good = [(item, value) for item, value in zip(items, loaded, strict=True) if not isinstance(value, DataError)]
        results = iter(self.predictor.predict(good) if good else ())
        texts = [
            _to_text(self._failure(item, value) if isinstance(value, DataError) else next(results))
            for item, value in zip(items, loaded, strict=True)
        ]
        return {"name": np.array([item.name for item in items]), "result": np.array(texts)}

    def _item(self, name: str, encoded: Any) -> Any:
        if encoded is None:
            [item] = self.task.collect([name])
            return item
        return SourceImage(name, partial(_decode, bytes(encoded), name, getattr(self.predictor, "prepare", None)))

    def _load(self, item: Any) -> Any:
        try:
            return self.predictor.load(item)
        except DataError as error:
            return error

    def _failure(self, item: Any, error: DataError) -> Any:
        return self.predictor.failure(item, error.reason if isinstance(error, ImageDecodeError) else str(error))


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
        tables: parquet files or folders of them, also at addresses such as s3://bucket/images, with a column of
            encoded images (or Hugging Face's image column) and one of their names.
        batch: inputs in a batch.
        workers: models at work in the cluster; 0 is one per GPU, or one per machine without GPUs.

    Raises:
        VitrailError: Ray is missing, or a table has no such columns.
        DataError: two inputs have the same name.
    """
    check_ray()
    _connect()
    data = import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    sets = [data.from_items([{"name": name} for name in names])] if names else []
    sets += [_table(data, list(tables))] if tables else []
    gpus = int(import_module("ray").cluster_resources().get("GPU", 0))
    machines = len([node for node in import_module("ray").nodes() if node["Alive"]])
    count = workers or gpus or machines
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
                raise DataError(f"Two inputs are called {result.path}; their results could not be told apart.")
            seen.add(result.path)
            yield result


def _connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, or start Ray on this machine; nothing is reported to anybody."""
    ray = import_module("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def _table(data: Any, paths: list[str]) -> Any:
    """Return the rows of parquet files as `name` and `data`."""
    rows = data.read_parquet(paths)
    columns = rows.columns()
    image = next((name for name in IMAGES if name in columns), None)
    name = next((each for each in NAMES if each in columns), None)
    if image is None:
        raise VitrailError(
            f"{paths[0]} has the columns {', '.join(columns)}; one of encoded images is needed ({', '.join(IMAGES)})."
        )
    return rows.map(partial(_row, image=image, name=name, place=paths[0]))


def _row(row: dict[str, Any], image: str, name: str | None, place: str) -> dict[str, Any]:
    """Return name and bytes of a row; a Hugging Face image holds both."""
    cell = row[image]
    encoded, inner = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    called = row[name] if name is not None else inner
    if called is None or encoded is None:
        raise VitrailError(f"{place} has a row without {'a name' if called is None else 'an image'}.")
    return {"name": str(called), "data": encoded}


def _decode(encoded: bytes, name: str, prepare: Any) -> Image.Image:
    return open_image(encoded, getattr(prepare, "mode", "RGB"), name=name)


def _to_text(result: Any) -> str:
    row = [] if result.error is not None else list(result.cells())
    return json.dumps([result.path, result.error, str(result), row, result.to_dict()])


def _from_text(text: str) -> RemoteResult:
    path, error, line, row, values = json.loads(text)
    return RemoteResult(path, error, line, tuple(row), values)
