"""Batches of sampled clouds."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vitrail.data.points.point_set import PointCloudSet
from vitrail.data.prefetch import prefetch_map
from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.point_sampling import PointSampling
from vitrail.tasks.points.sampling import sampled, still


class PointBatch(NamedTuple):
    """Points `(B, N, 3)`, labels `(B,)` and sample numbers `(B,)`."""

    points: Tensor
    labels: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def weight(self) -> float:
        """Number of clouds."""
        return float(len(self.points))

    def to(self, device: torch.device) -> Self:
        """Move points and labels to a device."""
        return self._replace(points=self.points.to(device), labels=self.labels.to(device))

    def split(self, count: int) -> list[tuple[float, Self]]:
        """Cut into at most `count` micro-batches, none empty, each with its share of the clouds."""
        parts = zip(*(value.tensor_split(count) for value in self), strict=True)
        return [(len(part[0]) / len(self.points), type(self)(*part)) for part in parts if len(part[0])]

    def placeholder(self) -> Self:
        """Return one cloud of zeros, which replaces an empty batch in a forward pass."""
        points = self.points.new_zeros(1, *self.points.shape[1:])
        return type(self)(points, self.labels.new_zeros(1), self.index.new_zeros(1))


class PointLoader:
    """Batches of clouds, epoch by epoch; each cloud is sampled anew in each epoch of training.

    Args:
        dataset: the clouds.
        order: sampler of the steps.
        sampling: number of points, and how they are drawn.
        fixed: whether a cloud has the same points in every pass (evaluation).
        threads: number of threads that read ahead.
    """

    def __init__(
        self, dataset: PointCloudSet, order: ResumableSampler, sampling: PointSampling, fixed: bool, threads: int = 1
    ):
        self.dataset, self.order, self.sampling, self.fixed = dataset, order, sampling, fixed
        self.threads = max(1, threads)

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[PointBatch]:
        """Yield this rank's batches from `start_step` to the end of the epoch."""
        steps = self.order.batches(epoch, start_step)
        yield from prefetch_map(lambda index: self.batch(index, epoch), steps, 2 * self.threads, self.threads)

    def batch(self, index: np.ndarray, epoch: int) -> PointBatch:
        """Sample some clouds."""
        clouds = [self._points(int(number), epoch) for number in index]
        points = torch.stack(clouds) if clouds else torch.zeros(0, self.sampling.points, 3)
        return PointBatch(points, self.dataset.labels[index], torch.from_numpy(index))

    def _points(self, number: int, epoch: int) -> Tensor:
        draws = still(number) if self.fixed else BatchRng(self.order.seed, epoch, np.array([number]))
        return sampled(self.dataset.cloud(number), self.sampling, draws)
