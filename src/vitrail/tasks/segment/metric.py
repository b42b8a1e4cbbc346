"""Metrics of segmentation, all from one confusion matrix pooled over a split."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitrail.data.label_map import IGNORE
from vitrail.tasks.segment.batch import SegmentBatch
from vitrail.tasks.segment.loss import SegmentLoss


def confusion_matrix(predicted: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return `(K, K)` counts: `[i, j]` pixels of class i predicted as class j; `IGNORE` never counts.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, IGNORE]), 2).tolist()
        [[1, 1], [0, 0]]
    """
    counted = classes != IGNORE
    pairs = classes[counted].long() * count + predicted[counted].long()
    return torch.bincount(pairs, minlength=count * count).reshape(count, count)


class PixelScores(NamedTuple):
    """Scores of a confusion matrix; of a class that is neither labelled nor predicted they are NaN.

    Args:
        iou: intersection over union of each class.
        recall: share of a class's pixels that are found.
        precision: share of the pixels predicted as a class that are right.
        accuracy: share of the labelled pixels that are right.
    """

    iou: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    accuracy: float

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that are labelled or predicted."""
        return float(np.nanmean(self.iou)) if np.isfinite(self.iou).any() else float("nan")

    @property
    def mean_accuracy(self) -> float:
        """Mean recall over the classes that are labelled."""
        return float(np.nanmean(self.recall)) if np.isfinite(self.recall).any() else float("nan")


def pixel_scores(confusion: np.ndarray) -> PixelScores:
    """Return the scores of a confusion matrix of true class by predicted class.

    IoU_c = n_cc / (sum_j n_cj + sum_i n_ic - n_cc)

    Example:
        >>> pixel_scores(np.array([[3, 1], [0, 4]])).miou
        0.775
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    right, labelled, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = right / (labelled + predicted - right)
        recall, precision = right / labelled, right / predicted
        accuracy = float(right.sum() / confusion.sum()) if confusion.sum() else float("nan")
    return PixelScores(iou, recall, precision, accuracy)


class SegmentMetric:
    """Loss, mIoU and pixel accuracy of a validation, pooled over all images, as sums that ranks can all-reduce.

    Args:
        classes: number of classes.
        loss: loss of the main head.
        device: device of the logits.

    Attributes:
        sums: the confusion matrix, row by row, then loss and labelled pixels; float64, so counts stay exact.
    """

    def __init__(self, classes: int, loss: SegmentLoss, device: torch.device | str = "cpu"):
        self.classes, self.loss = classes, loss
        self.sums = torch.zeros(classes * classes + 2, dtype=torch.float64, device=device)

    def update(self, outputs: list[tuple[Tensor, Tensor | None]], batch: SegmentBatch) -> None:
        """Add a batch."""
        for (logits, _), classes in zip(outputs, batch.masks, strict=True):
            counts = confusion_matrix(logits.argmax(1), classes, self.classes)
            self.sums[:-2] += counts.flatten().double()
            self.sums[-2] += self.loss.of(logits, classes).double()
            self.sums[-1] += counts.sum()

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        self.sums = all_reduce_sum(self.sums)

    def compute(self) -> dict[str, float]:
        """Return `loss`, `miou` and `pixel_accuracy`."""
        confusion = self.sums[:-2].reshape(self.classes, self.classes).cpu().numpy()
        scores = pixel_scores(confusion)
        loss, count = self.sums[-2:].tolist()
        return {"loss": loss / max(count, 1), "miou": scores.miou, "pixel_accuracy": scores.accuracy}
