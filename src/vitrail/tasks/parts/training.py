"""A training run that finds parts: clouds whose points know their parts."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.data.points.open_points import PointSplits
from vitrail.data.points.point_set import PointCloudSet
from vitrail.data.points.shapes import PARTS
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import DataError
from vitrail.tasks.classes.loss import classification_loss
from vitrail.tasks.parts.metric import PartMetric
from vitrail.tasks.parts.options import TrainOptions
from vitrail.tasks.points.batches import PointBatch, PointLoader
from vitrail.tasks.points.sampling import sampled_parts, still
from vitrail.tasks.points.training import PointTraining, build_point_model
from vitrail.tasks.task import RunSpec


class PartLoader(PointLoader):
    """Batches of clouds with the part of each point, `(B, N)`, as labels."""

    def batch(self, index: np.ndarray, epoch: int) -> PointBatch:
        """Sample some clouds."""
        count = self.sampling.points
        pairs = [self._sampled(int(number), epoch) for number in index]
        points = torch.stack([p for p, _ in pairs]) if pairs else torch.zeros(0, count, 3)
        parts = torch.stack([p for _, p in pairs]) if pairs else torch.zeros(0, count, dtype=torch.long)
        return PointBatch(points, parts, torch.from_numpy(index))

    def _sampled(self, number: int, epoch: int) -> tuple[Tensor, Tensor]:
        draws = still(number) if self.fixed else BatchRng(self.order.seed, epoch, np.array([number]))
        points, parts = sampled_parts(self.dataset.cloud(number), self.sampling, draws)
        if parts is None:
            raise DataError(f"{self.dataset.ids[number]} has no parts. {NEEDED}")
        return points, parts.long()


NEEDED = (
    "Give a column part (CSV), a property part or label (PLY clouds), an array parts (NPZ), classes (LAS), or shapes."
)


class PartTraining(PointTraining):
    """A model of parts bound to a data set with its options.

    Args:
        options: sampling and augmentation.
        run: data and model of the run.
        splits: the data set.
    """

    loader = PartLoader

    def __init__(self, options: TrainOptions, run: RunSpec, splits: PointSplits):
        self.options, self.splits = options, splits
        self.names = part_names(splits.require("train"), drawn=run.data.startswith("shapes"))
        self.model = build_point_model(options, run, len(self.names), "parts")
        self.sampling = self.model.sampling

    def describe(self) -> str:
        """Return the numbers of clouds, parts and points."""
        train = len(self.splits.require("train"))
        return f"{train:,} clouds, {len(self.names)} parts, {self.sampling.points:,} points each"

    def loss(self, outputs: tuple[Tensor], batch: PointBatch) -> Tensor:
        """Return the mean loss of the points."""
        return classification_loss(outputs[0].flatten(0, 1), batch.labels.flatten(), self.options.smoothing)

    def metric(self, device: torch.device) -> PartMetric:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return an empty accumulator."""
        return PartMetric(len(self.names), device)

    def dummy_batch(self, size: int) -> PointBatch:
        """Return random clouds with random parts."""
        shape = (size, self.sampling.points)
        return PointBatch(torch.randn(*shape, 3), torch.randint(len(self.names), shape), torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the names of the parts."""
        return {"labels": self.names}


def part_names(clouds: PointCloudSet, drawn: bool) -> tuple[str, ...]:
    """Return the names of the parts: those of analytic shapes, else numbers up to the largest in the data.

    Raises:
        DataError: a cloud has no parts, or there is only one, or a number is negative.
    """
    most = 0
    for number, name in enumerate(clouds.ids):
        parts = clouds.cloud(number).parts
        if parts is None or not len(parts):
            raise DataError(f"{name} has no parts. {NEEDED}")
        if parts.min() < 0:
            raise DataError(f"{name} has the part {parts.min()}; numbers of parts begin at 0.")
        most = max(most, int(parts.max()))
    if not 1 <= most < _MOST:
        raise DataError(f"{clouds.name} has parts up to number {most}; 2 to {_MOST} parts can be learnt.")
    return PARTS if drawn else tuple(f"part {number}" for number in range(most + 1))


_MOST = 1000
