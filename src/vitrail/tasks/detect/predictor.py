"""Finding objects in images."""

from collections.abc import Iterable, Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from vitrail.data.view import View, clip_boxes, fit_view
from vitrail.errors import DataError, VitrailError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.parts.detection.boxes import Boxes
from vitrail.parts.detection.head import paste_masks
from vitrail.parts.model import Model
from vitrail.tasks.detect.answers import DETECTED, SizedImages
from vitrail.tasks.detect.batches import BoxSample, collate
from vitrail.tasks.detect.coco_file import coco_file
from vitrail.tasks.detect.options import EvaluateOptions, PredictOptions
from vitrail.tasks.detect.result import Detections
from vitrail.tasks.image_sources import SourceImage
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import Notify, file_stem
from vitrail.tasks.table import Table


class Loaded(NamedTuple):
    """An image brought to the model's size, and the view that maps its boxes back."""

    pixels: np.ndarray
    view: View
    size: tuple[int, int]
    held: Image.Image | None


class DetectionPredictor:
    """A detector that finds objects in images of any size.

    The longest side is brought to the model's size; images of one padded size share a forward pass, so the answer does
    not depend on the other images of a batch.

    Args:
        model: a detector on its device.
        options: threshold and precision.
        count: number of images of the job, None if it is unknown.
        notify: receives the implementation that is chosen on the first batch.

    Raises:
        VitrailError: the precision is not one that detectors run in.
    """

    csv_columns = ("count", "objects")
    saved_name = staticmethod(file_stem)

    def __init__(
        self, model: Model, options: PredictOptions, count: int | None = None, notify: Notify = lambda choice: None
    ):
        self.model, self.options = model, options
        self.runner = detection_runner(model, count, options, notify)

    @property
    def gate(self) -> Event:
        """Cleared while something is timed."""
        return self.runner.gate

    def job(self) -> list[object]:
        """Return the options that determine the predictions, apart from the weights."""
        return [self.model.preprocess.to_dict(), list(names_of(self.model)), self.options.threshold]

    def load(self, item: SourceImage) -> Loaded:
        """Decode an image and bring it to the model's size."""
        mode = "L" if self.model.preprocess.channels == 1 else "RGB"
        image = item.read()
        image = image if image.mode == mode else image.convert(mode)
        side = self.model.preprocess.size
        view = fit_view(image.size, side, longest=side)
        return Loaded(np.array(view.image(image)), view, image.size, item.held)

    def predict(self, batch: list[tuple[SourceImage, Loaded]]) -> list[Detections]:
        """Return the objects of each image."""
        results: dict[int, Detections] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (_, loaded) in enumerate(batch):
            groups.setdefault(tuple(-(-side // 32) for side in loaded.pixels.shape[:2]), []).append(i)
        for members in groups.values():
            found = detect(self.runner, [batch[i][1].pixels for i in members])
            for i, boxes in zip(members, found, strict=True):
                results[i] = self._result(*batch[i], boxes)
        return [results[i] for i in range(len(batch))]

    def _result(self, item: SourceImage, loaded: Loaded, found: Boxes) -> Detections:
        kept = found.scores >= self.options.threshold
        found = Boxes(*(None if part is None else part[kept] for part in found))  # pyright: ignore[reportArgumentType]
        boxes = source_boxes(found, loaded.view, loaded.size)
        masks = None
        if found.masks is not None:
            masks = paste_masks(
                found.masks.cpu(), torch.from_numpy(boxes).float(), (loaded.size[1], loaded.size[0])
            ).numpy()
        indices, names = found.labels.tolist(), names_of(self.model)
        return Detections(
            item.name,
            tuple(names[i] for i in indices),
            tuple(found.scores.tolist()),
            tuple(map(tuple, boxes.tolist())),
            tuple(indices),
            loaded.size,
            masks,
            held=loaded.held,
        )

    def failure(self, item: SourceImage, reason: str) -> Detections:
        """Return the result of an image that cannot be read."""
        return Detections(item.name, error=reason)

    def files_of_all(self, rows: Iterable[Mapping[str, Any]], root: str) -> dict[str, bytes]:
        """Return `coco.json` with all objects of a job.

        Args:
            rows: `to_dict` of each result.
            root: folder that file names are relative to.
        """
        return {"coco.json": coco_file(rows, names_of(self.model), root)}

    def table(self, results: Sequence[Detections]) -> Table:
        """Return one object per row for one image, else one image per row."""
        if len(results) == 1:
            one = results[0]
            rows = [
                [label, f"{score:.1%}", *(f"{v:.0f}" for v in box)]
                for label, score, box in zip(one.labels, one.scores, one.boxes, strict=True)
            ]
            columns = ["object", "score", "left", "top", "right", "bottom"]
            return Table("", columns, rows, right=columns[1:])
        rows = [[r.path, str(len(r)), _counts(r)] for r in results]
        return Table("", ["image", "objects", "classes"], rows, right=["objects"])


def _counts(result: Detections) -> str:
    names = sorted(set(result.labels))
    return ", ".join(f"{result.labels.count(name)} {name}" for name in names)


def names_of(model: Model) -> tuple[str, ...]:
    """Return the class names of a detector, numbers if it has none.

    Example:
        >>> from vitrail.models import create_model
        >>> with torch.device("meta"):
        ...     names_of(create_model("faster_rcnn", num_classes=3))
        ('0', '1', '2')
    """
    return model.labels or tuple(map(str, range(model.config.num_classes)))


def source_boxes(found: Boxes, view: View, size: tuple[int, int]) -> np.ndarray:
    """Return the boxes `(n, 4)` of detections in pixels of the source image."""
    return clip_boxes(view.source_boxes(found.boxes.double().cpu().numpy()), size)


def detection_runner(
    model: nn.Module, count: int | None, options: PredictOptions | EvaluateOptions, notify: Notify
) -> InferenceRunner:
    """Return the runner of a detector, which takes the optimized model if it is faster and finds the same boxes.

    Args:
        model: a detector on its device.
        count: number of images of the job, None if it is unknown.
        options: have `precision` and `optimize`.
        notify: receives the implementation that is chosen.

    Raises:
        VitrailError: the precision is not one that detectors run in.
    """
    precision: Any = options.precision or "fp32"
    if precision == "int8":
        raise VitrailError("Detectors run in fp32 or bf16; int8 is for classifiers.")
    return InferenceRunner(model, count, precision=precision, fast=options.optimize, notify=notify, kind=DETECTED)


def detect(runner: InferenceRunner, images: list[np.ndarray]) -> list[Boxes]:
    """Run a detector on images `(Y, X, C)` of uint8 that have one padded size.

    Raises:
        DataError: a score or a coordinate is not a finite number.
    """
    empty, model = (np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool)), runner.model
    preprocess: Any = model.preprocess
    batch = collate([BoxSample(pixels, *empty, None, i) for i, pixels in enumerate(images)], preprocess)
    with inference_mode_for(model) as device:
        found = runner(SizedImages(batch.images.to(device), batch.image_sizes))
    if not all(bool(torch.isfinite(each.boxes).all() and torch.isfinite(each.scores).all()) for each in found):
        raise DataError(
            "The model gives boxes that are not numbers. Its weights are broken; try an earlier checkpoint."
        )
    return found
