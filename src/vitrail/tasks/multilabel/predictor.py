"""Labels of images, and their results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitrail.data.image_io import open_image
from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError, VitrailError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.native.image_resize import best_pixels
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classes.result import INK, PAPER, check_finite
from vitrail.tasks.image_sources import SourceImage
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.multilabel.options import PredictOptions
from vitrail.tasks.results import Notify
from vitrail.tasks.table import Table


@dataclass(frozen=True)
class FoundLabels:
    """The labels of an image.

    Args:
        path: its file, or its name.
        labels: names of its labels, the most probable first.
        probabilities: their probabilities.
        error: reason why it could not be read.
        image: the image itself, if it came from memory and not from a file.
    """

    path: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    def cells(self) -> tuple[str, ...]:
        """Return the labels in one cell, and their probabilities."""
        return ";".join(self.labels), ";".join(f"{p:.6f}" for p in self.probabilities)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        found = zip(self.labels, self.probabilities, strict=True)
        return {"path": self.path, "labels": [{"label": name, "probability": round(p, 6)} for name, p in found]}

    def draw(self) -> Image.Image:
        """Return the image above its labels."""
        image = self.image.convert("RGB") if self.image is not None else open_image(self.path)
        sheet = Image.new("RGB", (image.width, image.height + 24), PAPER)
        sheet.paste(image, (0, 0))
        ImageDraw.Draw(sheet).text((6, image.height + 4), self._text(), fill=INK, font=ImageFont.load_default(size=14))
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: labels are in the table."""
        return []

    def _text(self) -> str:
        found = zip(self.labels, self.probabilities, strict=True)
        return ", ".join(f"{name} {p:.1%}" for name, p in found) or "no label"

    def __str__(self) -> str:
        return f"{self.path}: {self.error or self._text()}"


class LabelPredictor:
    """A classifier that finds any number of labels per image.

    Args:
        model: a multi-label classifier on its device.
        options: thresholds and precision.
        count: number of images of the job, None if it is unknown.
        notify: receives the implementation that is chosen on the first batch.
    """

    csv_columns = ("labels", "probabilities")

    def __init__(self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None):
        self.model, self.options = model, options
        self.prepare = EvalTransform(model.preprocess, best_pixels(count))
        self.names = class_names(model, model.config.num_classes, None)
        self.thresholds = read_thresholds(options.thresholds, self.names, options.threshold)
        precision: Any = options.precision or "fp32"
        self.runner = InferenceRunner(model, count, precision=precision, fast=options.optimize, notify=notify)
        self.gate = self.runner.gate

    def job(self) -> list[object]:
        """Return the options that determine the predictions, apart from the weights."""
        return [self.model.preprocess.to_dict(), list(self.names), self.thresholds.tolist()]

    def load(self, item: SourceImage) -> Tensor:
        """Decode an image to the model's size, `(C, Y, X)` of uint8."""
        image = item.read()
        return self.prepare.to_pixels(image if image.mode == self.prepare.mode else image.convert(self.prepare.mode))

    def predict(self, batch: list[tuple[SourceImage, Tensor]]) -> list[FoundLabels]:
        """Return the labels of each image whose probabilities reach their thresholds.

        Raises:
            DataError: a logit is not a finite number.
        """
        items = [item for item, _ in batch]
        with inference_mode_for(self.model) as device:
            logits = self.runner(self.prepare.batch(torch.stack([each for _, each in batch]).to(device)))
        check_finite(logits, [item.name for item in items])
        return [self._found(item, row) for item, row in zip(items, logits.float().sigmoid().cpu().numpy(), strict=True)]

    def failure(self, item: SourceImage, reason: str) -> FoundLabels:
        """Return the result of an image that cannot be read."""
        return FoundLabels(item.name, error=reason)

    def table(self, results: Sequence[FoundLabels]) -> Table:
        """Return an image per row."""
        return Table("", ["image", "labels"], [[one.path, str(one).removeprefix(f"{one.path}: ")] for one in results])

    def _found(self, item: SourceImage, row: np.ndarray) -> FoundLabels:
        order = [int(k) for k in np.argsort(-row, kind="stable") if row[k] >= self.thresholds[k]]
        names, probabilities = tuple(self.names[k] for k in order), tuple(float(row[k]) for k in order)
        return FoundLabels(item.name, names, probabilities, image=item.held)


def read_thresholds(path: Path | None, names: tuple[str, ...], default: float) -> np.ndarray:
    """Return the threshold of each label: the best ones of an evaluation file, or the same for all.

    Raises:
        VitrailError: the file is of other labels.
        DataError: it is no evaluation of this task.
    """
    if path is None:
        return np.full(len(names), default)
    try:
        values = json.loads(Path(path).read_bytes())
        best = {one["name"]: float(one["best_threshold"]) for one in values["figures"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no evaluation of `vitrail evaluate --out` for several labels: {error}.") from error
    missing = [name for name in names if name not in best]
    if missing:
        raise VitrailError(f"{path} has no threshold of {missing[0]}; it belongs to a model with other labels.")
    return np.array([best[name] for name in names])
