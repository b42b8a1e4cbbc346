"""Labelling the pixels of images."""

from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

import torch
from torch import Tensor

from vitrail.data.label_map import from_metadata
from vitrail.errors import DataError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.parts.model import Model
from vitrail.tasks.image_sources import SourceImage
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.results import Notify, file_stem
from vitrail.tasks.segment.loading import WholeImages, mode_of, normalise, to_pixels
from vitrail.tasks.segment.options import PredictOptions
from vitrail.tasks.segment.result import Segmentation
from vitrail.tasks.segment.scores import ImageScorer, images_at_once
from vitrail.tasks.table import Table

SERVED_SCORES = 2**28
"""Most class scores of an image that a server accepts: 1 GB in fp32."""
Loaded = tuple[Tensor, tuple[int, int]]
"""Pixels `(C, Y, X)` at the size that the model reads, and height and width of the image."""


class SegmentPredictor:
    """A segmenter that labels the pixels of images of any size.

    Args:
        model: a segmenter on its device.
        options: windows, mirror image, precision.
        count: number of images of the job, None if it is unknown.
        notify: receives the implementation that is chosen on the first batch.

    Attributes:
        max_pixels: most pixels of an image that a server accepts.
    """

    csv_columns = ("height", "width", "classes")
    saved_name = staticmethod(file_stem)

    def __init__(self, model: Model, options: PredictOptions, count: int | None, notify: Notify = lambda choice: None):
        self.model, self.options = model, options
        self.labels = from_metadata(model.metadata)
        self.whole = WholeImages(model.metadata.get("short_side"))
        self.mode = mode_of(model.preprocess)
        self.max_pixels = SERVED_SCORES // len(self.labels.names)
        precision: Any = options.precision or "fp32"
        self.runner = InferenceRunner(model, count, precision=precision, fast=options.optimize, notify=notify)
        self.scores = ImageScorer(self.runner, options.window, options.overlap, options.flip_test)

    @property
    def gate(self) -> Event:
        """Cleared while something is timed."""
        return self.runner.gate

    def job(self) -> list[object]:
        """Return the options that determine the predictions, apart from the weights."""
        o = self.options
        return [self.model.preprocess.to_dict(), list(self.labels.names), o.window, o.overlap, o.flip_test]

    def load(self, item: SourceImage) -> Loaded:
        """Decode an image to the size that the model reads."""
        image = item.read()
        image = image if image.mode == self.mode else image.convert(self.mode)
        return to_pixels(self.whole.image(image)), (image.height, image.width)

    def predict(self, batch: list[tuple[SourceImage, Loaded]]) -> list[Segmentation]:
        """Return the class of each pixel; images of one size are computed together.

        Raises:
            DataError: a score is not a finite number.
        """
        groups: dict[Any, list[int]] = {}
        for i, (_, (pixels, size)) in enumerate(batch):
            groups.setdefault((pixels.shape, size), []).append(i)
        found: dict[int, Segmentation] = {}
        with inference_mode_for(self.model) as device:
            for members, size in self._parts(groups):
                pixels = torch.stack([batch[i][1][0] for i in members]).to(device)
                scores = self.scores(normalise(pixels, self.model.preprocess), size)
                for i, each in zip(members, scores, strict=True):
                    found[i] = self._result(batch[i][0], each)
        return [found[i] for i in range(len(batch))]

    def _parts(self, groups: dict[Any, list[int]]) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Cut groups of equal images so that their scores stay small."""
        for (_, size), members in groups.items():
            step = images_at_once(len(self.labels.names), size)
            for i in range(0, len(members), step):
                yield members[i : i + step], size

    def _result(self, item: SourceImage, scores: Tensor) -> Segmentation:
        if not bool(scores.isfinite().all()):
            raise DataError(f"{item.name}: the model's scores are not finite; its weights are damaged.")
        mask = self.labels.decode(scores.argmax(0).cpu().numpy())
        return Segmentation(item.name, mask, self.labels.names, self.labels.ids, image=item.held)

    def failure(self, item: SourceImage, reason: str) -> Segmentation:
        """Return the result of an image that cannot be read."""
        return Segmentation(item.name, error=reason)

    def table(self, results: Sequence[Segmentation]) -> Table:
        """Return one image per row, with its largest classes."""
        rows = []
        for result in results:
            largest = ", ".join(f"{name} {share:.1%}" for name, share in list(result.shares().items())[:5])
            rows.append([result.path, f"{result.mask.shape[1]} × {result.mask.shape[0]}", largest])
        return Table("", ["image", "pixels", "largest classes"], rows)
