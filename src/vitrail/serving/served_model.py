"""A model ready to be served: its task, predictors by options, and the implementation chosen at start."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from vitrail.data.points.cloud import Cloud
from vitrail.errors import VitrailError
from vitrail.explain.served_heat import heat_kinds
from vitrail.explain.served_maps import LayerInfo, layers_with_maps
from vitrail.inference.model_loading import task_of
from vitrail.parts.exported_file import exported_file
from vitrail.parts.model import Model
from vitrail.serving.inputs import Item, hold, make_input
from vitrail.serving.limits import Limits
from vitrail.serving.request_options import describe_options, request_options
from vitrail.tasks import find_options, find_task
from vitrail.tasks.image_sources import SourceImage
from vitrail.tasks.options import PredictionOptions
from vitrail.tasks.points.sources import CloudInput
from vitrail.tasks.results import Predictor, Streamer
from vitrail.tasks.text_sources import TextLine
from vitrail.trace.text_trace import is_text_model

_KEPT = 8
"""Predictors with options of requests that are kept."""
_MANY = 1_000_000
"""Number of inputs that a served model is prepared for."""


class ServedModel:
    """A model with its predictors.

    Args:
        name: name in routes.
        model: the model on its device.
        options: options of all its predictions.
        limits: limits of the server.

    Attributes:
        run: folder of the training run that the model is from, if it is from one.
        kind: kind of its inputs.
        predictor: predictor with the default options; None before `warm_up`.
        form: line about the implementation that was chosen.
    """

    def __init__(self, name: str, model: Model, options: PredictionOptions, limits: Limits):
        self.name, self.model, self.options, self.limits = name, model, options, limits
        self.task_name = task_of(model)
        self.task = find_task(self.task_name)
        self.kind = getattr(self.task, "reads", "image")
        self.predictor: Any = None
        self.run: Path | None = None
        self.form = ""
        self.check: Callable[[], None] = lambda: None
        self._chosen: Any = None
        self._others: OrderedDict[Any, Any] = OrderedDict()
        self._lock = Lock()

    @property
    def ready(self) -> bool:
        """Whether the model is optimized and warm."""
        return self.predictor is not None

    @property
    def sequential(self) -> bool:
        """Whether a batch saves nothing."""
        return getattr(self.predictor, "sequential", False)

    def warm_up(self) -> None:
        """Choose the implementation (compiling and packing it), and run batches of one and of the usual size."""
        smallest = {name: 1 for name, bounds in self.options.REQUEST.items() if bounds and bounds[0] == 1}
        predictor = self._build(self.model, replace(self.options, **smallest), self._note)
        size = 1 if getattr(predictor, "sequential", False) else self.options.batch
        for count in (size, 1):
            items = [example(self.kind, self.model) for _ in range(count)]
            list(predictor.predict([(item, predictor.load(item)) for item in items]))
        self._chosen = getattr(getattr(predictor, "runner", None), "form", None)
        if self._chosen is not None:
            self.form = str(self._chosen)
        self.predictor = predictor if not smallest else self._with(self.options)

    def _note(self, choice: Any) -> None:
        self.form = str(choice)

    def _build(self, model: Model, options: PredictionOptions, notify: Callable[[Any], None]) -> Any:
        predictor = self.task.predictor(model, options, _MANY, notify)
        if hasattr(predictor, "on_part"):
            predictor.on_part = lambda share: self.check()  # pyright: ignore[reportAttributeAccessIssue]
        return predictor

    def _with(self, options: PredictionOptions) -> Any:
        """Return a predictor with other options and the implementation that was chosen."""
        made = self._build(self.model, replace(options, optimize=False), lambda choice: None)
        if self._chosen is not None:
            made.runner.form = self._chosen
        return made

    def find(self, values: Mapping[str, Any]) -> Predictor:
        """Return the predictor for the options of a request.

        Raises:
            VitrailError: a request cannot set such an option.
        """
        options = request_options(self.options, values)
        if options == self.options:
            return self.predictor
        with self._lock:
            key = tuple(sorted(values.items()))
            if key not in self._others:
                self._others[key] = self._with(options)
            self._others.move_to_end(key)
            while len(self._others) > _KEPT:
                self._others.popitem(last=False)
            return self._others[key]

    @property
    def streams(self) -> bool:
        """Whether results can be streamed."""
        return isinstance(self.predictor, Streamer)

    @property
    def without_layers(self) -> str:
        """Reason why nothing inside an exported file can be shown; empty for other models."""
        if not exported_file(self.model):
            return ""
        return f"{self.name} is an exported file, which holds the outputs of its task alone; serve its model folder."

    @property
    def parameters(self) -> int | None:
        """Number of weights; None for an exported file, which does not state it."""
        return None if exported_file(self.model) else sum(value.numel() for value in self.model.parameters())

    @cached_property
    def layers_with_maps(self) -> list[LayerInfo]:
        """Layers whose attention maps can be shown."""
        return layers_with_maps(self.model)

    @cached_property
    def heatmaps(self) -> list[str]:
        """Heatmaps through all layers that can be shown."""
        return heat_kinds(self.model) if self.kind == "image" else []

    @property
    def traceable(self) -> bool:
        """Whether an input can be walked through the model step by step."""
        return not exported_file(self.model) and (self.kind == "image" or is_text_model(self.model))

    def describe(self) -> dict[str, Any]:
        """Return facts for clients."""
        preprocess, labels = getattr(self.model, "preprocess", None), getattr(self.model, "labels", None)
        return {
            "name": self.name,
            "task": self.task_name,
            "variant": getattr(self.model, "variant", ""),
            "input": self.kind,
            "parameters": self.parameters,
            "classes": list(labels) if labels else None,
            "ready": self.ready,
            "form": self.form,
            "image_size": getattr(preprocess, "size", None),
            "batch": self.options.batch,
            "options": describe_options(self.options),
            "streams": self.streams,
            "attention": self.kind == "image" and bool(self.layers_with_maps),
            "heatmaps": self.heatmaps,
            "traceable": self.traceable,
        }

    def item(self, content: bytes | str, number: int, draw: bool) -> Item:
        """Return the item of an input; it holds its image if its result is to be drawn."""
        limit = getattr(self.predictor, "max_pixels", None)
        made = make_input(self.kind, content, self.limits, f"input:{number}", limit)
        return hold(made, self.limits) if draw else made


def serve_model(name: str, model: Model, limits: Limits, **options: Any) -> ServedModel:
    """Return a model to be served.

    Args:
        name: name in routes.
        model: the model.
        limits: limits of the server.
        options: fields of the task's `PredictOptions`.

    Raises:
        VitrailError: the options do not fit the task.
    """
    return ServedModel(name, model, find_options(task_of(model)).PredictOptions(**options), limits)


def example(kind: str, model: Model) -> Item:
    """Return an input for warm-up runs: noise, or a short text."""
    rng = np.random.default_rng(0)
    if kind == "text":
        return TextLine("warm-up", "a [MASK] b")
    if kind == "points":
        cloud = Cloud(rng.random((64, 3)))
        return CloudInput("warm-up", lambda: cloud)
    side = getattr(getattr(model, "preprocess", None), "size", 64)
    if not isinstance(side, int):
        raise VitrailError(f"{model.variant} has no image size.")
    image = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return SourceImage("warm-up", lambda: image, held=image)
