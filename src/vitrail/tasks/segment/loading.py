"""Loading of images with masks: one view for both, then normalisation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils import data

from vitrail.data.augment import jitter
from vitrail.data.image_io import ImageDecodeError
from vitrail.data.label_map import IGNORE, LabelMap
from vitrail.data.masks import MaskSet
from vitrail.data.parallel import worker_failure
from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.view import View, draw_view, fit_view, is_mixed
from vitrail.errors import DataError
from vitrail.preprocess import Preprocess
from vitrail.tasks.segment.batch import SegmentBatch, grouped

TRIES = 10

Sample = tuple[Tensor, Tensor]
"""Pixels `(C, Y, X)` of uint8 and class indices `(Y', X')` of int16."""


def to_pixels(image: Image.Image) -> Tensor:
    """Return `(C, Y, X)` of uint8.

    Example:
        >>> to_pixels(Image.new("RGB", (4, 2))).shape
        torch.Size([3, 2, 4])
    """
    planes = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(planes).permute(2, 0, 1).contiguous()


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Return `(pixels / 255 - mean) / std`, `(B, C, Y, X)` of float32.

    Example:
        >>> flat = Preprocess(size=8, mean=(0.5,), std=(0.5,))
        >>> normalise(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), flat).item()
        1.0
    """
    mean, std = (torch.tensor(x, device=pixels.device)[:, None, None] for x in (preprocess.mean, preprocess.std))
    return (pixels.float() / 255 - mean) / std


def mode_of(preprocess: Preprocess) -> str:
    """Return the mode of Pillow for a model's channels.

    Example:
        >>> mode_of(Preprocess(size=8)), mode_of(Preprocess(size=8, mean=(0.5,), std=(0.5,)))
        ('RGB', 'L')
    """
    return "L" if preprocess.channels == 1 else "RGB"


@dataclass(frozen=True)
class WholeImages:
    """Whole images, with a short side of a fixed length if asked; the masks keep their size.

    Args:
        short_side: short side in pixels, or None.
    """

    short_side: int | None = None

    def image(self, image: Image.Image) -> Image.Image:
        """Return the image at the size that the model reads."""
        return image if self.short_side is None else fit_view(image.size, self.short_side).image(image)

    def __call__(self, image: Image.Image, mask: np.ndarray, draws: BatchRng) -> Sample:
        """Return pixels and class indices; nothing is drawn."""
        return to_pixels(self.image(image)), torch.from_numpy(mask)


@dataclass(frozen=True)
class RandomCrops:
    """Scale jitter, crop, flip and colour jitter, all from the draws of a sample.

    Args:
        size: side of the crops in pixels.
        short_side: short side that images are brought to before the jitter, or None.
        scale: least and greatest factor.
        flip: probability of the mirror.
        strength: strength of the colour jitter.
        most: largest share of one class in a crop.
        fill: colour beyond the border of the image.
    """

    size: int
    short_side: int | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    strength: float = 0.0
    most: float = 0.75
    fill: tuple[int, ...] = (124, 116, 104)

    def view(self, image_size: tuple[int, int], draws: BatchRng, attempt: int) -> View:
        """Draw a view of an image."""
        base = 1.0 if self.short_side is None else self.short_side / min(image_size)
        scale = (base * self.scale[0], base * self.scale[1])
        return draw_view(image_size, draws, (self.size, self.size), scale, self.flip, attempt)

    def __call__(self, image: Image.Image, mask: np.ndarray, draws: BatchRng) -> Sample:
        """Return pixels and class indices of one view."""
        view = self.view(image.size, draws, 0)
        seen = view.mask(mask, IGNORE)
        for attempt in range(1, TRIES if self.most < 1 else 1):
            if is_mixed(seen, self.most, IGNORE):
                break
            view = self.view(image.size, draws, attempt)
            seen = view.mask(mask, IGNORE)
        fill = self.fill if image.mode == "RGB" else self.fill[0]
        pixels = to_pixels(view.image(image, fill))
        if self.strength:
            pixels = jitter(pixels[None], draws, self.strength)[0]
        return pixels, torch.from_numpy(seen)


class SegmentLoader:
    """Batches of a set of images with masks.

    Args:
        dataset: the samples.
        transform: `(image, mask, draws) -> (pixels, classes)`.
        labels: meaning of the numbers in the masks.
        preprocess: normalisation of the model.
        order: sampler of the steps.
        workers: number of loading processes.
        bad: `fail` raises for an unreadable sample, `skip` leaves it out and counts it in `skipped`.
    """

    def __init__(
        self,
        dataset: MaskSet,
        transform: Callable[..., Sample],
        labels: LabelMap,
        preprocess: Preprocess,
        order: ResumableSampler,
        workers: int = 0,
        bad: str = "fail",
    ):
        self.dataset, self.order, self.preprocess, self.bad = dataset, order, preprocess, bad
        self.skipped: dict[str, str] = {}
        self._keys = _Keys(order)
        self._loader = data.DataLoader(
            _Fetch(dataset, transform, labels, mode_of(preprocess), order.seed),
            batch_size=None,
            sampler=self._keys,
            num_workers=workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # torch's global one must not depend on how often loading starts
            persistent_workers=workers > 0,
        )

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[SegmentBatch]:
        """Yield this rank's batches from `start_step` on.

        Raises:
            DataError: a sample cannot be read, under `bad="fail"`.
        """
        self._keys.epoch, self._keys.start_step = epoch, start_step
        try:
            for samples, faults in self._loader:
                if faults and self.bad == "fail":
                    name, reason = faults[0]
                    raise DataError(
                        f"{self.dataset.name}: {name}: {reason}.\n"
                        "Mend it (`vitrail data check DATA` lists everything), or leave it out: --bad skip."
                    )
                self.skipped |= dict(faults)
                batch = grouped(samples, self.preprocess.channels)
                images = tuple(normalise(each, self.preprocess) for each in batch.images)
                yield batch._replace(images=images, masks=tuple(each.long() for each in batch.masks))
        except RuntimeError as error:
            failure = worker_failure(error)
            if failure is None:
                raise
            raise failure from error


class _Keys(data.Sampler[tuple[int, np.ndarray]]):
    """Epoch and sample numbers of each step, so that workers are stateless."""

    def __init__(self, order: ResumableSampler) -> None:
        self.order, self.epoch, self.start_step = order, 0, 0

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        epoch = self.epoch
        return ((epoch, index) for index in self.order.batches(epoch, self.start_step))

    def __len__(self) -> int:
        return self.order.steps - self.start_step


class _Fetch(data.Dataset[Any]):
    """Reads the samples of a batch; runs in the workers."""

    def __init__(
        self,
        dataset: MaskSet,
        transform: Callable[..., Sample],
        labels: LabelMap,
        mode: Literal["L", "RGB"] | str,
        seed: int,
    ):
        self.dataset, self.transform, self.labels, self.mode, self.seed = dataset, transform, labels, mode, seed

    def __getitem__(self, key: tuple[int, np.ndarray]) -> tuple[list[tuple[Sample, int]], list[tuple[str, str]]]:
        epoch, index = key
        samples, faults = [], []
        for number in index.tolist():
            draws = BatchRng(self.seed, epoch, np.array([number]))
            try:
                image, mask = self.dataset.pair(number, self.mode)
                classes = self.labels.encode(mask, self.dataset.ids[number])
            except ImageDecodeError as error:
                faults.append((self.dataset.ids[number], error.reason))
                continue
            samples.append((self.transform(image, classes, draws), number))
        return samples, faults


def _unchanged(item: Any) -> Any:
    return item
