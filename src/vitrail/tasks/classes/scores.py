"""Scores of each image, and metrics of a split.

Logits are reduced to a few numbers per image at once and dropped, so the memory of an evaluation does not grow with the
number of classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.tasks.confidence_interval import Rate, f1_interval, wilson


@dataclass(frozen=True)
class Scores:
    """Scores of a batch: one number per image in each field, `(B,)`.

    Args:
        label: the true class.
        predicted: the class with the largest logit; the first of equal ones.
        confidence: probability of the predicted class.
        rank: number of classes ranked above the true one; 0 is correct.
        loss: negative log-likelihood of the true class.
        brier: squared distance between the probabilities and the one-hot truth, 0 to 2.
    """

    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    loss: np.ndarray
    brier: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Mask of the correct predictions."""
        return self.predicted == self.label

    @classmethod
    def concatenate(cls, parts: Sequence["Scores"]) -> "Scores":
        """Concatenate the batches of a split."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def score(logits: Tensor, labels: Tensor) -> Scores:
    """Reduce logits `(B, K)` to scores.

    Computed in float64, so that neither bf16 logits nor the batch size changes a loss of 1e-7. Among equal logits
    the lower class comes first, as in argmax; `rank == 0` and `predicted == label` always agree.
    """
    log_p = logits.detach().to("cpu", torch.float64).log_softmax(dim=1)
    labels = labels.cpu()
    own = log_p.gather(1, labels[:, None])  # (B, 1)
    before = torch.arange(log_p.shape[1])[None] < labels[:, None]
    rank = ((log_p > own) | ((log_p == own) & before)).sum(dim=1)
    log_best, predicted = log_p.max(dim=1)
    p = log_p.exp()
    brier = p.square().sum(dim=1) - 2 * own.exp()[:, 0] + 1
    return Scores(*(x.numpy() for x in (labels, predicted, log_best.exp(), rank, -own[:, 0], brier)))


@dataclass(frozen=True)
class ClassFigures:
    """Metrics of one class.

    Args:
        label: name of the class.
        support: number of images of the class.
        predicted: number of images predicted as the class.
        precision: fraction of the predicted images that are of the class.
        recall: fraction of the images of the class that are predicted as it.
        f1: harmonic mean of the two.
    """

    label: str
    support: int
    predicted: int
    precision: Rate
    recall: Rate
    f1: Rate

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassFigures":
        """Build from the dict of `dataclasses.asdict`, also after a JSON round trip."""
        rates = {name: Rate(*values[name]) for name in ("precision", "recall", "f1")}
        return cls(**{**values, **rates})


def count_confusions(scores: Scores, classes: int) -> np.ndarray:
    """Return the confusion matrix `(K, K)`: rows are true classes, columns predicted ones."""
    # Not scikit-learn's: its import, with pandas and SciPy, takes 140 MB and two seconds of every training.
    cells = np.bincount(scores.label * classes + scores.predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def class_figures(confusion: np.ndarray, labels: Sequence[str]) -> tuple[ClassFigures, ...]:
    """Return the metrics of each class with confidence intervals; a ratio over zero images is None, not 0.

    Example:
        >>> [(each.label, each.recall.value) for each in class_figures(np.array([[2, 0], [1, 1]]), ["cat", "dog"])]
        [('cat', 1.0), ('dog', 0.5)]
    """
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassFigures(label, s, p, wilson(h, p), wilson(h, s), f1_interval(h, s + p - 2 * h))
        for label, h, s, p in zip(labels, hits.tolist(), support.tolist(), predicted.tolist(), strict=True)
    )


def macro_f1(classes: Sequence[ClassFigures]) -> float:
    """Return the unweighted mean of F1 over the classes that occur in the truth.

    Example:
        >>> confusion = np.array([[2, 0], [1, 1]])
        >>> round(macro_f1(class_figures(confusion, ["cat", "dog"])), 3)
        0.733
    """
    return float(np.mean([each.f1.value or 0.0 for each in classes if each.support]))


def top(scores: Scores, k: int) -> Rate:
    """Return the top-`k` accuracy with its confidence interval."""
    return wilson(int((scores.rank < k).sum()), len(scores.rank))
