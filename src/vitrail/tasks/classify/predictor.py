"""Naming the classes of images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitrail.data.bands import bands_of
from vitrail.data.image_io import ImageDecodeError, open_image
from vitrail.data.transform import EvalTransform
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.native.image_resize import best_pixels
from vitrail.parts.model import Model
from vitrail.preprocess import Preprocess
from vitrail.tasks.classes.class_names import class_names, read_names
from vitrail.tasks.classes.result import check_finite
from vitrail.tasks.classify.options import PredictOptions, check_views
from vitrail.tasks.classify.result import Classification, classify
from vitrail.tasks.classify.view_average import averaged
from vitrail.tasks.image_sources import SourceImage
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import Notify
from vitrail.tasks.table import Table

REDUCED = 3
"""A JPEG may be decoded at a smaller scale that leaves so many times the pixels that the model's resize asks for.

The logits of the real ViT-Ti then move by 1 to 3 % of their range in the median, two to three times as far as bf16
moves them, and of 100 predictions 1 to 11 change (`benchmarks/draft.py`; bf16: 0 to 3): so it is opt-in. With 1.5 they
move by 4.4 %, and every seventh prediction changes.
"""


class ClassPredictor:
    """A classifier that names the classes of images.

    Args:
        model: a classifier on its device.
        options: number of classes, their names, precision.
        count: number of images of the job, None if it is unknown.
        notify: receives the implementation that is chosen on the first batch.

    Raises:
        VitrailError: the number of class names is not that of the classes.
    """

    def __init__(self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None):
        self.model, self.options = model, options
        self.prepare = EvalTransform(model.preprocess, best_pixels(count))
        self.draft_side = reduced_side(model.preprocess) if options.draft else None
        names: Any = options.labels  # a path, or the names themselves
        self.given = read_names(names) if isinstance(names, str) or hasattr(names, "__fspath__") else names
        self.names: tuple[str, ...] = ()
        classes = getattr(getattr(model, "config", None), "num_classes", None)
        if classes:  # checked before any work, if the model declares its number of classes
            self.names = class_names(model, classes, self.given)
        precision: Any = options.precision or "fp32"
        self.runner = InferenceRunner(model, count, precision=precision, fast=options.optimize, notify=notify)
        self.gate, self.views = self.runner.gate, check_views(options.tta)
        self.answer = averaged(self.runner, self.views)
        kept = range(1, options.top + 1)
        self.csv_columns = tuple(f"{name}_{i}" for i in kept for name in ("label", "probability"))

    def job(self) -> list[object]:
        """Return the options that determine the predictions, apart from the weights."""
        names = self.given or getattr(self.model, "labels", None)
        labels = None if names is None else list(names)
        views = [list(self.views)] if self.views else []
        return [self.model.preprocess.to_dict(), labels, self.options.top, self.options.draft, *views]

    def load(self, item: SourceImage) -> Tensor:
        """Decode an image to the model's size, `(C, Y, X)` of uint8."""
        if bands_of(self.prepare.mode) is not None:
            return self.prepare.to_pixels(self._bands(item))
        image = item.read() if self.draft_side is None or item.draft is None else item.draft(self.draft_side)
        return self.prepare.to_pixels(image if image.mode == self.prepare.mode else image.convert(self.prepare.mode))

    def _bands(self, item: SourceImage) -> Any:
        """Read an image with the bands of the model: a file, or bytes of one."""
        if item.held is not None:
            raise ImageDecodeError(item.name, f"the model takes {self.prepare.mode}: give the path of a file", "format")
        return open_image(item.content or item.name, self.prepare.mode, name=item.name)

    def predict(self, batch: list[tuple[SourceImage, Tensor]]) -> list[Classification]:
        """Return the likeliest classes of each image.

        Raises:
            DataError: a logit is not a finite number.
        """
        paths, pixels = [item.name for item, _ in batch], torch.stack([each for _, each in batch])
        with inference_mode_for(self.model) as device:
            logits = self.answer(self.prepare.batch(pixels.to(device)))
        check_finite(logits, paths)
        self.names = self.names or class_names(self.model, logits.shape[1], self.given)
        found = zip(batch, classify(logits, paths, self.names, self.options.top), strict=True)
        form = str(self.runner.form or "")
        return [replace(result, image=item.held, form=form) for (item, _), result in found]

    def failure(self, item: SourceImage, reason: str) -> Classification:
        """Return the result of an image that cannot be read."""
        return Classification(item.name, error=reason)

    def table(self, results: Sequence[Classification]) -> Table:
        """Return one image per row, or of a single image one class per row."""
        if len(results) == 1:
            rows = [[label, f"{p:.1%}", "█" * round(20 * p)] for label, p in results[0].top(self.options.top)]
            return Table("", ["class", "probability", ""], rows, right=["probability"])
        rows = [[r.path, r.label, f"{r.probability:.1%}", _others(r)] for r in results]
        return Table("", ["image", "class", "probability", "next"], rows, right=["probability"])


def reduced_side(preprocess: Preprocess) -> int:
    """Return the least side that a JPEG may be decoded at for a model; see `REDUCED`.

    Example:
        >>> reduced_side(Preprocess(224))
        744
    """
    return REDUCED * preprocess.resize


def _others(result: Classification) -> str:
    return ", ".join(f"{label} {p:.1%}" for label, p in result.top(3)[1:])
