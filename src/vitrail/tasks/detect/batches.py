"""Batches of images with boxes: every view is a function of seed, epoch and sample."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vitrail.data.boxes.dataset import BoxRecord, BoxSet
from vitrail.data.prefetch import prefetch_map
from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.view import View, clip_boxes, draw_view, fit_view
from vitrail.errors import DataError
from vitrail.parts.detection.boxes import Targets
from vitrail.preprocess import Preprocess
from vitrail.tasks.skipped import skip_hint

DIVISOR = 32
"""Sides of a padded image are multiples of it: the coarsest stride of most backbones."""

LEAST = 2.0
"""Least side in pixels of a box after a random view; what is left of a smaller one cannot be recognised."""

SEEN = 0.25
"""Least share of a box that a random crop must keep."""


class BoxBatch(NamedTuple):
    """Padded images `(B, C, Y, X)` and their objects.

    Args:
        images: normalised; padding is zero.
        sizes: `(B, 2)`, rows and columns without padding.
        boxes: `(n, 4)` of all images one after the other, in pixels of the padded images.
        labels: `(n,)` class numbers from 0.
        ignore: `(n,)`, objects that are left out of the loss and of the metric.
        counts: `(B,)`, objects of each image.
        masks: `(n, Y, X)` of uint8, or `(0, Y, X)` for boxes alone.
        index: `(B,)` sample numbers.
    """

    images: Tensor
    sizes: Tensor
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    counts: Tensor
    masks: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def weight(self) -> float:
        """Number of images."""
        return float(len(self.images))

    def to(self, device: torch.device) -> Self:
        """Move all but the sample numbers."""
        return self._make([*(x.to(device, non_blocking=True) for x in self[:-1]), self.index])

    def split(self, count: int) -> list[tuple[float, Self]]:
        """Cut into at most `count` micro-batches, none empty."""
        ends = torch.cumsum(self.counts, 0).tolist()
        parts = []
        for rows in torch.arange(len(self.images)).tensor_split(count):
            if not len(rows):
                continue
            a, b = int(rows[0]), int(rows[-1]) + 1
            i, j = (ends[a - 1] if a else 0), ends[b - 1]
            masks = self.masks[i:j] if len(self.masks) else self.masks
            whole = (self.boxes[i:j], self.labels[i:j], self.ignore[i:j], self.counts[a:b], masks, self.index[a:b])
            parts.append(((b - a) / len(self.images), type(self)(self.images[a:b], self.sizes[a:b], *whole)))
        return parts

    def by_padded_size(self) -> list[tuple[list[int], Self]]:
        """Return a batch of the images of each padded size, with their rows in this one.

        In a batch of one size an image has no padding that others cause: the results of global attention and of
        positions that are resized to the map would change with it.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, size in enumerate(self.image_sizes):
            groups.setdefault(tuple(-(-side // DIVISOR) * DIVISOR for side in size), []).append(row)
        owners = torch.arange(len(self.counts), device=self.counts.device).repeat_interleave(self.counts)
        parts = []
        for (tall, wide), rows in groups.items():
            own = torch.isin(owners, torch.tensor(rows, device=owners.device))
            objects = (self.boxes[own], self.labels[own], self.ignore[own], self.counts[rows])
            masks = self.masks[own, :tall, :wide] if len(self.masks) else self.masks[:, :tall, :wide]
            images = self.images[rows, :, :tall, :wide]
            parts.append((rows, type(self)(images, self.sizes[rows], *objects, masks, self.index[rows])))
        return parts

    def placeholder(self) -> Self:
        """Return one black image without objects."""
        whole = self.images.shape[-2:]
        sizes = torch.tensor([whole], device=self.images.device)
        none = (self.boxes[:0], self.labels[:0], self.ignore[:0], self.counts.new_zeros(1), self.masks[:0])
        return type(self)(self.images.new_zeros(1, *self.images.shape[1:]), sizes, *none, self.index.new_zeros(1))

    def targets(self) -> Targets:
        """Return the objects to learn, image by image."""
        counts = self.counts.tolist()
        keep = [~part for part in self.ignore.split(counts)]
        boxes, labels = self.boxes.split(counts), self.labels.split(counts)
        masks = None
        if len(self.masks) or not len(self.boxes):
            parts = self.masks.split(counts) if len(self.masks) else [self.masks[:0]] * len(counts)
            masks = [mask[kept] for mask, kept in zip(parts, keep, strict=True)]
        return Targets(
            [box[kept] for box, kept in zip(boxes, keep, strict=True)],
            [label[kept] for label, kept in zip(labels, keep, strict=True)],
            masks,
        )

    @property
    def image_sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of each image."""
        return [(int(y), int(x)) for y, x in self.sizes.tolist()]


class ViewLoader:
    """Batches of views.

    Args:
        dataset: images with boxes.
        order: sampler of the steps.
        preprocess: statistics of the model; its size is that of the canvas.
        view: function from image size, epoch and sample number to a view.
        masks: whether objects have masks to learn.
        bad: treatment of unreadable images: `fail`, or `skip`, which makes their batch smaller.
    """

    def __init__(
        self,
        dataset: BoxSet,
        order: ResumableSampler,
        preprocess: Preprocess,
        view: Callable[[tuple[int, int], int, int], View],
        masks: bool = False,
        bad: str = "fail",
    ) -> None:
        self.dataset, self.order, self.preprocess, self.view = dataset, order, preprocess, view
        self.masks, self.bad = masks, bad
        self.skipped: dict[str, str] = {}

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[BoxBatch]:
        """Yield this rank's batches from `start_step` on, read ahead in threads.

        Raises:
            DataError: an image cannot be read, under `bad="fail"`.
        """
        steps = self.order.batches(epoch, start_step)
        with skip_hint(self.bad):
            yield from prefetch_map(lambda index: self._batch(index, epoch), steps, window=2, threads=2)

    def _batch(self, index: np.ndarray, epoch: int) -> BoxBatch:
        samples = []
        for number in index.tolist():
            try:
                samples.append(self._sample(number, epoch))
            except DataError as error:
                if self.bad == "fail":
                    raise
                self.skipped[self.dataset.ids[number]] = str(error)
        return collate(samples, self.preprocess, self.masks)

    def _sample(self, number: int, epoch: int) -> "BoxSample":
        mode = "L" if self.preprocess.channels == 1 else "RGB"
        image, record = self.dataset.image(number, mode), self.dataset.records[number]
        view = self.view(image.size, epoch, number)
        boxes = clip_boxes(view.boxes(record.boxes), view.size)
        extent, before = boxes[:, 2:] - boxes[:, :2], view.boxes(record.boxes)
        area = (before[:, 2:] - before[:, :2]).prod(1)
        kept = (extent >= LEAST).all(1) & (extent.prod(1) >= SEEN * area)
        masks = None
        if self.masks:
            found = [rasterise(record, i, view, image.size) for i in np.flatnonzero(kept).tolist()]
            masks = np.stack(found) if found else np.zeros((0, view.size[1], view.size[0]), np.uint8)
        pixels = np.array(view.image(image))
        return BoxSample(pixels, boxes[kept], record.labels[kept], record.ignore[kept], masks, number)


class BoxSample(NamedTuple):
    """One image `(Y, X, C)` or `(Y, X)` of uint8 with its objects."""

    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    masks: np.ndarray | None
    number: int


def collate(samples: list[BoxSample], preprocess: Preprocess, masks: bool = False) -> BoxBatch:
    """Normalise and pad samples to one size, a multiple of `DIVISOR`.

    Example:
        >>> from vitrail.preprocess import Preprocess
        >>> none = np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool)
        >>> collate([BoxSample(np.zeros((40, 70, 3), np.uint8), *none, None, 0)], Preprocess()).images.shape
        torch.Size([1, 3, 64, 96])
    """
    sizes = [sample.pixels.shape[:2] for sample in samples]
    tall, wide = (-(-max((size[i] for size in sizes), default=DIVISOR) // DIVISOR) * DIVISOR for i in (0, 1))
    images = torch.zeros(len(samples), preprocess.channels, tall, wide)
    for image, sample in zip(images, samples, strict=True):
        y, x = sample.pixels.shape[:2]
        image[:, :y, :x] = normalize(sample.pixels, preprocess)
    planes = torch.zeros(sum(len(s.boxes) for s in samples) if masks else 0, tall, wide, dtype=torch.uint8)
    at = 0
    for sample in samples if masks else ():
        assert sample.masks is not None
        y, x = sample.pixels.shape[:2]
        planes[at : at + len(sample.masks), :y, :x] = torch.from_numpy(sample.masks)
        at += len(sample.masks)

    def joined(name: str, empty: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        parts = [torch.from_numpy(np.ascontiguousarray(getattr(sample, name))) for sample in samples]
        return torch.cat([torch.zeros(empty, dtype=dtype), *(part.to(dtype) for part in parts)])

    return BoxBatch(
        images,
        torch.tensor(sizes, dtype=torch.long).reshape(-1, 2),
        joined("boxes", (0, 4), torch.float32),
        joined("labels", (0,), torch.long),
        joined("ignore", (0,), torch.bool),
        torch.tensor([len(sample.boxes) for sample in samples], dtype=torch.long),
        planes,
        torch.tensor([sample.number for sample in samples], dtype=torch.long),
    )


def normalize(pixels: np.ndarray, preprocess: Preprocess) -> Tensor:
    """Return `(C, Y, X)`, normalised, of pixels `(Y, X, C)` or `(Y, X)` of uint8.

    Example:
        >>> from vitrail.preprocess import Preprocess
        >>> normalize(np.full((1, 1, 3), 255, np.uint8), Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)).flatten().tolist()
        [1.0, 1.0, 1.0]
    """
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).float()
    planes = planes[None] if planes.ndim == 2 else planes.permute(2, 0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return (planes / 255 - mean) / std


def rasterise(record: BoxRecord, number: int, view: View, image_size: tuple[int, int]) -> np.ndarray:
    """Return the mask of an object in a view, `(Y, X)` of uint8: a pixel whose centre is inside its outline.

    Raises:
        DataError: the outline is neither polygons nor run lengths.
    """
    outline: Any = record.outlines[number]
    if isinstance(outline, dict):
        return view.mask(run_lengths(outline, image_size), fill=0)
    if not isinstance(outline, list) or not all(isinstance(each, list) and len(each) >= 6 for each in outline):
        raise DataError(f"{record.id}: the outline of object {number} is neither polygons nor run lengths.")
    wide, tall = view.size
    mask = np.zeros((tall, wide), dtype=np.uint8)
    for polygon in outline:
        points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        mask |= fill_polygon(view.boxes(np.concatenate([points, points], axis=1))[:, :2], view.size)
    return mask


def fill_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels `(Y, X)` of uint8 whose centres are inside a polygon, by the even-odd rule.

    Each edge toggles the row of every centre that it crosses, from the crossing on.

    Args:
        points: `(n, 2)`, x and y in edges of pixels.
        size: width and height.

    Example:
        >>> fill_polygon(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]]), (3, 4)).tolist()
        [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    """
    wide, tall = size
    toggles = np.zeros((tall, wide + 1), dtype=np.int64)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = (max(math.ceil(min(max(y, 0), tall) - 0.5), 0) for y in sorted((y0, y1)))
        rows = np.arange(low, high)
        crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0) if len(rows) else rows
        np.add.at(toggles, (rows, np.clip(np.ceil(crossings - 0.5), 0, wide).astype(np.int64)), 1)
    return (np.cumsum(toggles, axis=1)[:, :wide] % 2).astype(np.uint8)


def run_lengths(outline: dict[str, Any], image_size: tuple[int, int]) -> np.ndarray:
    """Decode COCO's uncompressed run lengths, column by column, to a mask `(Y, X)` of uint8.

    Raises:
        DataError: they are compressed, or do not fill the image.

    Example:
        >>> run_lengths({"size": [2, 2], "counts": [1, 2, 1]}, (2, 2)).tolist()
        [[0, 1], [1, 0]]
    """
    counts, (wide, tall) = outline.get("counts"), image_size
    if not isinstance(counts, list):
        raise DataError("Compressed run lengths are not read; convert them to polygons or lists of counts.")
    values = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    if values.size != wide * tall:
        raise DataError(f"Run lengths of {values.size} pixels do not fill an image of {wide} x {tall}.")
    return values.reshape(wide, tall).T


def random_view(seed: int, side: int, scale: tuple[float, float], flip: float) -> Callable[..., View]:
    """Return the function that draws a square training view of `side` pixels."""

    def draw(image_size: tuple[int, int], epoch: int, number: int) -> View:
        base = side / max(image_size)
        draws = BatchRng(seed, epoch, np.array([number]))
        return draw_view(image_size, draws, (side, side), (base * scale[0], base * scale[1]), flip)

    return draw


def still_view(side: int) -> Callable[..., View]:
    """Return the function of the whole image with its longest side brought to `side`.

    Example:
        >>> still_view(64)((128, 64), 0, 0).size
        (64, 32)
    """
    return lambda image_size, epoch, number: fit_view(image_size, side, longest=side)
