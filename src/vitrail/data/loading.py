"""Data loader: batches from any step of an epoch, with any number of worker processes."""

import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from vitrail.data.augment import EraseBoxes
from vitrail.data.dataset import Arrays, ImageSet
from vitrail.data.image_io import ImageDecodeError
from vitrail.data.index import DataProblem
from vitrail.data.packed import unreadable_images
from vitrail.data.parallel import worker_failure
from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.transform import Transform

_FIT_BYTES = 256 * 2**20

# Workers must be children of the training itself: torch's watchdog ends them when their parent dies, and the parent of
# a worker that came from a fork server (the default from Python 3.14 on) outlives a killed training.
_START = "fork" if sys.platform == "linux" else "spawn"


class Batch(NamedTuple):
    """Images `(B, C, Y, X)`, labels `(B,)`, and sample indices `(B,)`."""

    images: Tensor
    labels: Tensor
    index: Tensor

    @property
    def weight(self) -> float:
        """Number of images."""
        return float(len(self.images))

    def to(self, device: torch.device) -> "Batch":
        """Move images and labels to a device."""
        images, labels = (value.to(device, non_blocking=True) for value in (self.images, self.labels))
        return self._replace(images=images, labels=labels)

    def split(self, count: int) -> list[tuple[float, "Batch"]]:
        """Cut into at most `count` micro-batches, none empty, each with its share of the images."""
        parts = zip(*(value.tensor_split(count) for value in self), strict=True)
        return [(len(part[0]) / len(self.images), Batch(*part)) for part in parts if len(part[0])]

    def placeholder(self) -> "Batch":
        """Return one black image, which replaces an empty batch in a forward pass."""
        index = self.index.new_zeros(1)
        return Batch(self.images.new_zeros(1, *self.images.shape[1:]), self.labels.new_zeros(1), index)


class _Fetched(NamedTuple):
    """Result of a worker: uint8 pixels, and the augmentation that runs on the device."""

    pixels: Tensor
    holes: EraseBoxes | None
    labels: Tensor
    index: Tensor
    faults: list[DataProblem]


class Loader:
    """Batches of a data set, epoch by epoch.

    Images go from the workers to this process, and from there to the device, as uint8; they are normalised there, a
    batch at a time.

    Args:
        dataset: the images.
        transform: preprocessing and augmentation.
        order: sampler of the steps.
        workers: number of loading processes; 0 loads in this process, which is best for packed images.
        bad: policy for an image that cannot be decoded: `fail` raises, `skip` drops it from its batch (which gets
            smaller; no other image replaces it) and counts it in `skipped`.
        timeout: seconds without a batch after which hanging workers are an error.
        device: device of the batches.
    """

    def __init__(
        self,
        dataset: ImageSet,
        transform: Transform,
        order: ResumableSampler,
        *,
        workers: int = 0,
        bad: Literal["fail", "skip"] = "fail",
        timeout: float = 600,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dataset, self.transform, self.order, self.bad = dataset, transform, order, bad
        self.device = torch.device(device)
        self.skipped: dict[str, str] = {}
        self._plan = _Plan(order)
        # A generator of its own: torch's global one must not feel how often loading starts, or a resumed run would
        # draw another dropout.
        self._loader = data.DataLoader(
            _Fetch(fitted(dataset, transform), transform, order.seed),
            batch_size=None,
            sampler=self._plan,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            timeout=timeout if workers else 0,
            generator=torch.Generator(),
            persistent_workers=workers > 0,
            multiprocessing_context=_START if workers else None,
        )

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.order.steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch()

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches from `start_step` to the end of the epoch.

        Raises:
            DataError: an image cannot be decoded, under `bad="fail"`.
            ResourceError: a worker process died or hangs.
        """
        self._plan.epoch, self._plan.start_step = epoch, start_step
        try:
            for fetched in self._loader:
                if fetched.faults and self.bad == "fail":
                    raise unreadable_images(self.dataset.name, fetched.faults)
                self.skipped |= {fault.id: fault.reason for fault in fetched.faults}
                yield self._finished(fetched)
        except RuntimeError as error:
            failure = worker_failure(error)
            if failure is None:
                raise
            raise failure from error

    def _finished(self, fetched: _Fetched) -> Batch:
        pixels, labels = (x.to(self.device, non_blocking=True) for x in (fetched.pixels, fetched.labels))
        return Batch(self.transform.finish(pixels, fetched.holes), labels, fetched.index)


def train_loader(
    dataset: ImageSet,
    transform: Transform,
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    bad: Literal["fail", "skip"] = "fail",
    device: torch.device | str = "cpu",
    balanced: bool = False,
) -> Loader:
    """Return a loader that shuffles each epoch and drops the last, smaller step; `batch_size` is over all ranks.

    `balanced` draws all classes equally often.
    """
    labels = tuple(dataset.labels.tolist()) if balanced else None
    order = ResumableSampler(len(dataset), batch_size, seed, rank=rank, world=world, labels=labels)
    return Loader(dataset, transform, order, workers=workers, bad=bad, device=device)


def eval_loader(
    dataset: ImageSet,
    transform: Transform,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    bad: Literal["fail", "skip"] = "fail",
    device: torch.device | str = "cpu",
) -> Loader:
    """Return a loader that shows each image once, in order; over the ranks no image is lost or seen twice."""
    order = ResumableSampler(len(dataset), batch_size, shuffle=False, drop_last=False, rank=rank, world=world)
    return Loader(dataset, transform, order, workers=workers, bad=bad, device=device)


def fitted(dataset: ImageSet, transform: Transform) -> ImageSet:
    """Bring packed images of another size to the model's size once, where that needs no draws and little memory."""
    pixels, size = dataset.pixels, transform.preprocess.size
    still = getattr(transform, "draft", None) is None
    bytes_needed = len(dataset) * transform.preprocess.channels * size * size
    if pixels is None or not still or transform.leaves(*pixels.shape[1:]) or bytes_needed > _FIT_BYTES:
        return dataset
    images = (transform.to_pixels(dataset.image(number, transform.mode)) for number in range(len(dataset)))
    resized = Arrays(torch.stack(list(images)).numpy())
    return ImageSet(dataset.name, dataset.classes, dataset.ids, dataset.labels.numpy(), resized)


def _as_it_is(item: Any) -> Any:
    return item


class _Plan(data.Sampler[tuple[int, np.ndarray]]):
    """Batch sampler of the workers; carries the epoch, so that workers are stateless."""

    def __init__(self, order: ResumableSampler) -> None:
        self.order, self.epoch, self.start_step = order, 0, 0

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        epoch = self.epoch
        return ((epoch, index) for index in self.order.batches(epoch, self.start_step))

    def __len__(self) -> int:
        return self.order.steps - self.start_step


class _Fetch(data.Dataset[_Fetched]):
    """Make one batch; runs in the workers."""

    def __init__(self, dataset: ImageSet, transform: Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed
        store = dataset.store
        self.gather = store.gather if isinstance(store, Arrays) and transform.leaves(*store.pixels.shape[1:]) else None

    def __getitem__(self, key: tuple[int, np.ndarray]) -> _Fetched:
        epoch, numbers = key
        faults: list[DataProblem] = []
        index = numbers % len(self.dataset)  # a repeated image has a larger number, and other draws
        if self.gather is not None:
            draws, pixels = BatchRng(self.seed, epoch, numbers), self.gather(index)
        else:
            kept, pixels, faults = self._read(BatchRng(self.seed, epoch, numbers), index)
            draws, index = BatchRng(self.seed, epoch, numbers[kept]), index[kept]
        pixels, holes = self.transform.vary(pixels, draws)
        return _Fetched(pixels, holes, self.dataset.labels[index], torch.from_numpy(index), faults)

    def _read(self, draws: BatchRng, index: np.ndarray) -> tuple[list[int], Tensor, list[DataProblem]]:
        """Decode the images one by one; those that cannot be decoded are reported and left out; return kept rows."""
        size, channels = self.transform.preprocess.size, self.transform.preprocess.channels
        planes, kept, faults = [], [], []
        for row, number in enumerate(index.tolist()):
            try:
                image = self.dataset.image(number, self.transform.mode, self.transform.draft)
            except ImageDecodeError as error:
                faults.append(DataProblem(error.name, error.reason, error.kind))
                continue
            planes.append(self.transform.to_pixels(image, draws.take(np.array([row]))))
            kept.append(row)
        empty = torch.empty(0, channels, size, size, dtype=torch.uint8)
        return kept, torch.stack(planes) if planes else empty, faults
