"""Figures of multi-label classification: average precision, best thresholds, precision, recall and F1."""

from typing import NamedTuple

import numpy as np


class LabelFigures(NamedTuple):
    """Figures of one label.

    Args:
        name: the label.
        count: images that have it.
        ap: average precision; None without such images.
        threshold: the threshold of precision and recall.
        precision: share of the named images that have it; None if none was named.
        recall: share of its images that were named; None without any.
        best_threshold: threshold of the largest F1 on these images.
        best_f1: that F1.
    """

    name: str
    count: int
    ap: float | None
    threshold: float
    precision: float | None
    recall: float | None
    best_threshold: float
    best_f1: float


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the area under the precision-recall curve, the sum of (R_n - R_{n-1}) P_n; None without positives.

    Equal scores are one step of the curve, so their order does not matter; as in scikit-learn.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 1]))
        0.8333333333333333
    """
    positives = truth.sum()
    if not positives:
        return None
    hits, named, _ = _curve(scores, truth)
    recall = np.concatenate([[0.0], hits / positives])
    return float(((recall[1:] - recall[:-1]) * hits / named).sum())


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the threshold with the largest F1 = 2 hits / (named + positives), and that F1; 0.5 without positives.

    The threshold is half way to the next lower score, so that rounding does not change it.

    Example:
        >>> best_threshold(np.array([0.9, 0.7, 0.3, 0.1]), np.array([1, 1, 0, 0]))
        (0.5, 1.0)
    """
    if not truth.sum():
        return 0.5, 0.0
    hits, named, levels = _curve(scores, truth)
    f1 = 2 * hits / (named + truth.sum())
    best = int(f1.argmax())
    below = levels[best + 1] if best + 1 < len(levels) else 0.0
    return float((levels[best] + below) / 2), float(f1[best])


def _curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hits and named images down to each distinct score, the highest first."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return truth[order].cumsum()[ends].astype(float), ends + 1.0, scores[order][ends]


def figures(
    scores: np.ndarray, truth: np.ndarray, names: tuple[str, ...], thresholds: np.ndarray
) -> list[LabelFigures]:
    """Return the figures of each label.

    Args:
        scores: probabilities `(n, K)`.
        truth: `(n, K)` of 0 and 1.
        names: names of the labels.
        thresholds: `(K,)`.
    """
    found = []
    for number, name in enumerate(names):
        p, t = scores[:, number], truth[:, number]
        said = p >= thresholds[number]
        hits, named, count = float((said * t).sum()), int(said.sum()), int(t.sum())
        precision, recall = hits / named if named else None, hits / count if count else None
        best = best_threshold(p, t)
        found.append(
            LabelFigures(name, count, average_precision(p, t), float(thresholds[number]), precision, recall, *best)
        )
    return found


def micro_f1(scores: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> float:
    """Return F1 over all labels of all images; 1 if there is nothing to find and nothing was named.

    Example:
        >>> micro_f1(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1, 0], [0, 1]]), np.array([0.5, 0.5]))
        1.0
    """
    said = scores >= thresholds
    total = said.sum() + truth.sum()
    return float(2 * (said * truth).sum() / total) if total else 1.0


def mean_ap(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean of the average precisions of the labels that occur; 0 without any.

    Example:
        >>> mean_ap(np.array([[0.9], [0.2], [0.6]]), np.array([[1], [0], [1]]))
        1.0
    """
    found = [average_precision(scores[:, k], truth[:, k]) for k in range(truth.shape[1])]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else 0.0
