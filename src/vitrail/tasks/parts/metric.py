"""Confusion of parts over all points: loss, accuracy and mean intersection over union."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.tasks.points.batches import PointBatch


class PartMetric:
    """Sums of a validation that ranks can all-reduce.

    IoU_k = right_k / (points of k + points taken for k - right_k), over the points of all clouds; the mean is over the
    parts that occur.

    Args:
        parts: number of parts K.
        device: device of the logits.

    Attributes:
        confusion: `(K, K)` points of part i taken for part j; float64, so counts stay exact.
    """

    def __init__(self, parts: int, device: torch.device | str = "cpu"):
        self.parts = parts
        self.confusion = torch.zeros(parts, parts, dtype=torch.float64, device=device)
        self.loss = torch.zeros(1, dtype=torch.float64, device=device)

    def update(self, outputs: tuple[Tensor], batch: PointBatch) -> None:
        """Add a batch: logits `(B, N, K)` and `batch.labels` `(B, N)`."""
        logits, labels = outputs[0].flatten(0, 1), batch.labels.flatten()
        self.loss += cross_entropy(logits.float(), labels, reduction="sum").double()
        cells = labels * self.parts + logits.argmax(1)
        self.confusion += torch.bincount(cells, minlength=self.parts**2).view_as(self.confusion)

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        sums = all_reduce_sum(torch.cat([self.confusion.flatten(), self.loss]))
        self.confusion, self.loss = sums[:-1].view_as(self.confusion), sums[-1:]

    def ious(self) -> list[float | None]:
        """Return the IoU of each part; None of one that neither occurs nor is predicted."""
        right = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - right
        return [r / u if u else None for r, u in zip(right.tolist(), union.tolist(), strict=True)]

    def compute(self) -> dict[str, float]:
        """Return `loss`, `miou` and `accuracy`.

        Example:
            >>> metric = PartMetric(2)
            >>> metric.confusion = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
            >>> metric.compute()["miou"]
            0.775
        """
        count = float(self.confusion.sum())
        support = self.confusion.sum(1).tolist()
        found = [iou or 0.0 for iou, points in zip(self.ious(), support, strict=True) if points]
        return {
            "loss": float(self.loss) / count,
            "miou": sum(found) / len(found),
            "accuracy": float(self.confusion.diagonal().sum()) / count,
        }
