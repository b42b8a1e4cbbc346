"""Calibration of class probabilities: expected calibration error, NLL, Brier score and reliability diagram."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vitrail.tasks.classes.scores import Scores


@dataclass(frozen=True)
class Bin:
    """Bin of a reliability diagram: predictions with a confidence in `(low, high]`.

    Args:
        low: lower bound, exclusive.
        high: upper bound, inclusive.
        count: number of predictions.
        confidence: mean confidence; None if the bin is empty.
        accuracy: top-1 accuracy; None if the bin is empty.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Calibration metrics of a split.

    Args:
        ece: expected calibration error: mean distance between confidence and accuracy over the bins, weighted by count.
        nll: mean negative log-likelihood of the truth, in nats.
        brier: mean squared distance between the probabilities and the one-hot truth, 0 (best) to 2.
        confidence: mean confidence.
        bins: the reliability diagram.
    """

    ece: float
    nll: float
    brier: float
    confidence: float
    bins: tuple[Bin, ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """Build from the dict of `dataclasses.asdict`, also after a JSON round trip."""
        return cls(**{**values, "bins": tuple(Bin(**each) for each in values["bins"])})


def calibrate(scores: Scores, bins: int = 15) -> Calibration:
    """Compute the calibration metrics of a split.

    Formula: ECE = Σ_b n_b / n · |accuracy_b − confidence_b|, with equal bins `(low, high]` over the confidence of the
    predicted class.

    Guo et al. 2017 (On Calibration of Modern Neural Networks), section 2, with their 15 bins. ECE grows with the number
    of bins and with small splits; compare only values of one protocol.

    Args:
        scores: scores of each image.
        bins: number of equal bins over 0..1.
    """
    index = np.clip(np.ceil(scores.confidence * bins).astype(int) - 1, 0, bins - 1)
    table = tuple(_bin(scores, index == b, b / bins, (b + 1) / bins) for b in range(bins))
    gaps = [
        b.count * abs(b.accuracy - b.confidence) for b in table if b.accuracy is not None and b.confidence is not None
    ]
    return Calibration(
        ece=float(sum(gaps) / len(scores.label)),
        nll=float(scores.loss.mean()),
        brier=float(scores.brier.mean()),
        confidence=float(scores.confidence.mean()),
        bins=table,
    )


def _bin(scores: Scores, inside: np.ndarray, low: float, high: float) -> Bin:
    count = int(inside.sum())
    if count == 0:
        return Bin(low, high, 0, None, None)
    return Bin(low, high, count, float(scores.confidence[inside].mean()), float(scores.right[inside].mean()))
