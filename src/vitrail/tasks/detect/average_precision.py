"""Average precision as COCO defines it, from sums that add up over images and processes."""

from typing import NamedTuple

import numpy as np

THRESHOLDS = np.arange(0.5, 1.0, 0.05).round(2)
"""Overlaps (IoU) at which a detection counts as right: 0.50, 0.55, ..., 0.95."""

BINS = 2048
"""Steps of the score in `Histograms`; detections of one step count as tied."""


class Matched(NamedTuple):
    """Detections of an image, each right, wrong or ignored at each threshold: `(T, n)`."""

    right: np.ndarray
    ignored: np.ndarray


def overlaps(found: np.ndarray, true: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    """Return the intersection over union `(n, m)`; over the detection's own area for objects to be ignored.

    Example:
        >>> overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]]), np.array([False])).round(3).tolist()
        [[0.333]]
    """
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(2)
    own = (found[:, 2:] - found[:, :2]).prod(1)[:, None]
    other = (true[:, 2:] - true[:, :2]).prod(1)[None]
    return inside / np.maximum(np.where(ignore[None], own, own + other - inside), 1e-12)


def match(found: np.ndarray, true: np.ndarray, ignore: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> Matched:
    """Match detections, best first, with objects of their class: each takes the best free object above the threshold.

    COCO's rule: an object to be ignored is taken only if no other fits, and may be taken again.

    Args:
        found: `(n, 4)` boxes, best score first.
        true: `(m, 4)` boxes.
        ignore: `(m,)`.
        thresholds: `(T,)` least overlaps.

    Example:
        >>> boxes = np.array([[0.0, 0, 4, 4], [5, 5, 9, 9]])
        >>> found = match(boxes, boxes[:1], np.zeros(1, bool), np.array([0.5]))
        >>> found.right.tolist()
        [[True, False]]
    """
    right, ignored = (np.zeros((len(thresholds), len(found)), dtype=bool) for _ in range(2))
    order = np.argsort(ignore, kind="stable")
    iou = overlaps(found, true[order], ignore[order]) if len(true) and len(found) else None
    if iou is None:
        return Matched(right, ignored)
    last = ignore[order]
    for t, least in enumerate(thresholds):
        free = np.ones(len(true), dtype=bool)
        for i in range(len(found)):
            for crowd in (False, True):
                open_ = (free | crowd) & (last == crowd) & (iou[i] >= min(least, 1 - 1e-10))
                if open_.any():
                    best = int(np.flatnonzero(open_)[np.argmax(iou[i][open_])])
                    free[best] = False
                    (ignored if crowd else right)[t, i] = True
                    break
    return Matched(right, ignored)


class Histograms:
    """Right and wrong detections by class, threshold and score; arrays of float64 that can be summed.

    Args:
        classes: number of classes K.
    """

    def __init__(self, classes: int) -> None:
        self.right = np.zeros((classes, len(THRESHOLDS), BINS))
        self.wrong = np.zeros((classes, len(THRESHOLDS), BINS))
        self.objects = np.zeros(classes)

    def add(
        self,
        found: np.ndarray,
        scores: np.ndarray,
        found_labels: np.ndarray,
        true: np.ndarray,
        true_labels: np.ndarray,
        ignore: np.ndarray,
    ) -> None:
        """Add an image."""
        order = np.argsort(-scores, kind="stable")
        bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
        for label in np.union1d(found_labels, true_labels).astype(int):
            own, real = order[found_labels[order] == label], true_labels == label
            matched = match(found[own], true[real], ignore[real])
            self.objects[label] += int((~ignore[real]).sum())
            for t in range(len(THRESHOLDS)):
                np.add.at(self.right[label, t], bins[own], matched.right[t])
                np.add.at(self.wrong[label, t], bins[own], ~matched.right[t] & ~matched.ignored[t])

    def precision(self) -> np.ndarray:
        """Return the average precision by class and threshold, `(K, T)`; NaN for classes without objects."""
        right = self.right[..., ::-1].cumsum(-1)
        wrong = self.wrong[..., ::-1].cumsum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            recall = right / self.objects[:, None, None]
            precision = np.nan_to_num(right / (right + wrong))
        best = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
        points = np.linspace(0, 1, 101)
        result = np.full(recall.shape[:2], np.nan)
        for k, t in np.ndindex(*result.shape):
            if self.objects[k]:
                place = np.searchsorted(recall[k, t], points - 1e-9, side="left")
                result[k, t] = np.append(best[k, t], 0.0)[place].mean()
        return result
