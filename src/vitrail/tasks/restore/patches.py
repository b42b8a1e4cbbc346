"""Batches of restoration: patches of training images, whole images of a validation."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from vitrail.data.degradations import Degradation
from vitrail.data.parallel import worker_failure
from vitrail.data.restoration_set import RestorationSet
from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng

_START = "fork" if sys.platform == "linux" else "spawn"


class RestoreBatch(NamedTuple):
    """Degraded images `(B, c, Y, X)`, true ones `(B, c, s Y, s X)` in 0..1, and sample numbers."""

    low: Tensor
    high: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def weight(self) -> float:
        """Number of images; all have the same number of pixels."""
        return float(len(self.low))

    def to(self, device: torch.device) -> "RestoreBatch":
        """Move the images to a device."""
        low, high = (value.to(device, non_blocking=True) for value in (self.low, self.high))
        return self._replace(low=low, high=high)

    def split(self, count: int) -> list[tuple[float, "RestoreBatch"]]:
        """Cut into at most `count` micro-batches, none empty, each with its share of the images."""
        parts = zip(*(value.tensor_split(count) for value in self), strict=True)
        return [(len(part[0]) / len(self.low), RestoreBatch(*part)) for part in parts if len(part[0])]

    def placeholder(self) -> "RestoreBatch":
        """Return one black image, which replaces an empty batch in a forward pass."""
        low, high = (value.new_zeros(1, *value.shape[1:]) for value in (self.low, self.high))
        return RestoreBatch(low, high, self.index.new_zeros(1))


class PatchSet(data.Dataset[RestoreBatch]):
    """Patches of images; sample k is a patch of image `k // patches`, a function of seed, epoch and k.

    Args:
        images: the images.
        degradation: degradation of images without partners.
        channels: 1 or 3.
        patch: side of a degraded patch.
        patches: patches an epoch cuts from each image.
        flips: whether patches are flipped and rotated.
        seed: seed of the run.
    """

    def __init__(
        self,
        images: RestorationSet,
        degradation: Degradation,
        channels: int,
        patch: int,
        patches: int,
        flips: bool,
        seed: int,
    ):
        self.images, self.degradation, self.channels = images, degradation, channels
        self.patch, self.patches, self.flips, self.seed = patch, patches, flips, seed
        self.name = images.name

    def __len__(self) -> int:
        return len(self.images) * self.patches

    @property
    def ids(self) -> Sequence[str]:
        """Image and number of each patch."""
        return [f"{self.images.ids[k // self.patches]} patch {k % self.patches + 1}" for k in range(len(self))]

    def __getitem__(self, key: tuple[int, np.ndarray]) -> RestoreBatch:
        epoch, index = key
        if not len(index):
            side, scale = self.patch, self.degradation.scale
            empty = [torch.zeros(0, self.channels, s, s) for s in (side, side * scale)]
            return RestoreBatch(empty[0], empty[1], torch.from_numpy(index))
        draws = BatchRng(self.seed, epoch, index)
        pairs = [self.pair(int(k), draws.take(np.array([i]))) for i, k in enumerate(index)]
        low, high = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
        return RestoreBatch(to_tensor(low), to_tensor(high), torch.from_numpy(index))

    def pair(self, number: int, rng: BatchRng) -> tuple[np.ndarray, np.ndarray]:
        """Return a degraded patch and the true one, `(Y, X, C)` in 0..255."""
        scale, side = self.degradation.scale, self.patch
        image = number // self.patches
        high, low = self.images.high(image, self.channels), self.images.low(image, scale, self.channels)
        height, width = (length // scale for length in high.shape[:2]) if low is None else low.shape[:2]
        y, x = (int(rng.integers(axis, n - side + 1)[0]) for axis, n in (("row", height), ("column", width)))
        if low is None:
            small = self._degraded(high, (y, x), rng)
        else:
            small = low[y : y + side, x : x + side].astype(np.float32)
        true = high[y * scale : (y + side) * scale, x * scale : (x + side) * scale].astype(np.float32)
        turn = int(rng.integers("turn", 8)[0]) if self.flips else 0
        return turned(small, turn), turned(true, turn)

    def _degraded(self, high: np.ndarray, corner: tuple[int, int], rng: BatchRng) -> np.ndarray:
        """Degrade a patch with the surroundings that it depends on, so that it equals that of the whole image."""
        scale = self.degradation.scale
        around = -(-self.degradation.reach // scale)
        first = [max(place - around, 0) for place in corner]
        last = [min(place + self.patch + around, n // scale) for place, n in zip(corner, high.shape[:2], strict=True)]
        area = high[first[0] * scale : last[0] * scale, first[1] * scale : last[1] * scale].astype(np.float32)
        small = self.degradation(area, rng)
        y, x = (place - start for place, start in zip(corner, first, strict=True))
        return small[y : y + self.patch, x : x + self.patch]


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Return one of the 8 flips and quarter turns of `(Y, X, C)`; 0 leaves it.

    Example:
        >>> turned(np.arange(4).reshape(2, 2, 1), 1)[..., 0].tolist()
        [[1, 3], [0, 2]]
    """
    image = np.rot90(image, turn % 4)
    return image[:, ::-1] if turn >= 4 else image


def to_tensor(images: np.ndarray) -> Tensor:
    """Return `(..., Y, X, C)` in 0..255 as `(..., C, Y, X)` in 0..1.

    Example:
        >>> to_tensor(np.full((2, 3, 1), 255, np.uint8)).shape
        torch.Size([1, 2, 3])
    """
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3), dtype=np.float32)) / 255


class PatchLoader:
    """Batches of patches, epoch by epoch.

    Args:
        dataset: the patches.
        order: sampler of the steps.
        workers: loading processes; 0 loads in this process.
    """

    def __init__(self, dataset: PatchSet, order: ResumableSampler, workers: int = 0):
        self.dataset, self.order, self.workers = dataset, order, workers

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[RestoreBatch]:
        """Yield this rank's batches from `start_step` to the end of the epoch."""
        keys = [(epoch, index) for index in self.order.batches(epoch, start_step)]
        loader: Any = data.DataLoader(
            self.dataset,
            batch_size=None,
            sampler=keys,  # pyright: ignore[reportArgumentType]
            num_workers=self.workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
            multiprocessing_context=_START if self.workers else None,
        )
        try:
            yield from loader
        except RuntimeError as error:
            failure = worker_failure(error)
            if failure is None:
                raise
            raise failure from error


class WholePairs:
    """Whole images of a validation, one a step, because sizes differ.

    Args:
        images: the images.
        degradation: degradation of images without partners.
        channels: 1 or 3.
        order: sampler of the steps.
    """

    def __init__(self, images: RestorationSet, degradation: Degradation, channels: int, order: ResumableSampler):
        self.dataset, self.degradation, self.channels, self.order = images, degradation, channels, order

    @property
    def steps(self) -> int:
        """Steps, the same on every rank."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[RestoreBatch]:
        """Yield this rank's images; their degradation is the same in every epoch."""
        for index in self.order.batches(0, start_step):
            if not len(index):
                empty = torch.zeros(0, self.channels, 8, 8)
                yield RestoreBatch(
                    empty, empty.new_zeros(0, self.channels, *[8 * self.degradation.scale] * 2), torch.from_numpy(index)
                )
            for number in index:
                low, high = whole_pair(self.dataset, int(number), self.degradation, self.channels)
                yield RestoreBatch(to_tensor(low[None]), to_tensor(high[None]), torch.tensor([int(number)]))


def whole_pair(
    images: RestorationSet, number: int, degradation: Degradation, channels: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the degraded and the true image, the latter cropped to a multiple of the scale; both `(Y, X, C)`."""
    high, low = images.high(number, channels), images.low(number, degradation.scale, channels)
    scale = degradation.scale
    if low is None:
        high = high[: high.shape[0] // scale * scale, : high.shape[1] // scale * scale]
        if not high.size:
            raise small_image(images.ids[number], scale)
        low = degradation(high.astype(np.float32), BatchRng(seed, 0, np.array([number])))
    return np.asarray(low, np.float32), high[: low.shape[0] * scale, : low.shape[1] * scale].astype(np.float32)


def small_image(name: str, scale: int) -> Exception:
    """Return the error for an image that has no pixel left after downscaling."""
    from vitrail.errors import DataError

    return DataError(f"{name} is smaller than {scale} x {scale} pixels, so nothing is left of it at 1/{scale}.")


def _as_it_is(item: Any) -> Any:
    return item
