"""A/B trial of the plain and the optimized model on the same images: interleaved timing and comparison of logits.

    turn 1: image 0    plain, then fast
    turn 2: image 1    plain, then fast ...

The outputs of one model are discarded, so the trial ends as soon as the difference is clear, and goes on near a
threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vitrail.fused.accuracy import BARS, Agreement
from vitrail.fused.answers import LOGITS, Answer, Logits

Timed = Callable[[Answer, Any], tuple[Any, float]]
"""Runs a model on images, and returns logits and elapsed seconds."""

WORTH = 1.05
"""Minimum speedup of the optimized model; below, it may be noise."""

MARGINS = (2.0, 1.5, 1.2, 1.0)
"""Margins on speedup and error for an early decision, by turn; the last turn decides without a margin.

Other load on one of two cores during one measurement halves or doubles the ratio. The error of the logits of 150
photographs was at most 2.2 times the median (trained ViT-Ti, bf16 and int8).
"""

COLD = 0.1
"""Minimum seconds of a first turn for a decision: it includes loading libraries and allocating memory."""

MOST = 20.0
"""Maximum plausible speedup: a larger one is due to one-time setup in the first call of the plain model."""


class TrialArm:
    """One arm of the trial: logits and timings of a model, a few images per turn.

    Args:
        answer: the model.
        images: the batch, `(B, C, Y, X)`.
        size: images per turn.
        timed: runs the model and measures the time.
        kind: kind of the outputs.

    Example:
        >>> images = torch.arange(3.0).reshape(3, 1, 1, 1)
        >>> side = TrialArm(lambda some: some.flatten(1), images, 2, lambda answer, some: (answer(some), 1.0))
        >>> side.ask(0)
        >>> side.answers.tolist(), side.least
        ([[0.0], [1.0]], 1.0)
    """

    def __init__(self, answer: Answer, images: Any, size: int, timed: Timed, kind: Logits = LOGITS):
        self.answer, self.size, self.kind = answer, min(size, len(images)), kind
        self._parts = [part for part in images.split(self.size) if len(part) == self.size]
        self._timed = timed
        self._seconds: list[float] = []
        self._said: list[Any] = []

    def ask(self, turn: int) -> None:
        """Run a turn if it has not run yet; after the last images, the first ones repeat for timing only."""
        if turn < len(self._seconds):
            return
        logits, seconds = self._timed(self.answer, self._parts[turn % len(self._parts)])
        self._seconds.append(seconds)
        if turn < len(self._parts):
            self._said.append(logits)

    @property
    def answers(self) -> Any:
        """Logits of the images run so far, from the start of the batch."""
        return self.kind.join(self._said)

    @property
    def least(self) -> float:
        """Seconds of the fastest turn, the least affected by other load and by warm-up."""
        return min(self._seconds)


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial.

    Args:
        agreement: agreement of the logits.
        speedup: speedup of the optimized model over the plain one.
    """

    agreement: Agreement
    speedup: float

    @property
    def faster(self) -> bool:
        """Whether the speedup reaches the minimum."""
        return self.speedup >= WORTH

    @property
    def reason(self) -> str | None:
        """Reason why the optimized model is rejected; None if it is accepted."""
        if not self.agreement.holds:
            return f"the answers of the fast one in {self.agreement.precision} {lack(self.agreement)}"
        if not self.faster:
            return f"the fast one in {self.agreement.precision} is no faster here ({self.speedup:.2f}x)"
        return None

    def accepts(self, margin: float) -> bool:
        """Return whether speedup and error pass their thresholds with this margin."""
        near = self.agreement.holds and (self.agreement.error or 0.0) * margin <= BARS[self.agreement.precision]
        return near and self.speedup >= WORTH * margin

    def rejects(self, margin: float) -> bool:
        """Return whether the speedup misses its threshold by this margin, or the logits are not finite."""
        return self.agreement.error is None or self.speedup * margin < WORTH


def try_out(fast: TrialArm, plain: TrialArm, truth: TrialArm, precision: str) -> TrialResult:
    """Run interleaved turns until it is clear whether the optimized model is faster and agrees.

    Too large an error is judged only at the end: if an image is ambiguous, all of its logits are so close that rounding
    errors are large relative to their range.

    Args:
        fast: the optimized model.
        plain: the plain model.
        truth: the model in fp32; often the plain model itself.
        precision: compute precision of the optimized model, which determines the error bound.
    """
    for turn, margin in enumerate(MARGINS):
        for side in dict.fromkeys((plain, truth, fast)):
            side.ask(turn)
        answers = fast.answers
        agreement = fast.kind.compare(answers, truth.answers[: len(answers)], precision)
        verdict = TrialResult(agreement, plain.least / fast.least)
        warm = turn > 0 or (plain.least >= COLD and WORTH <= verdict.speedup <= MOST)
        if verdict.agreement.error is None or (warm and (verdict.accepts(margin) or verdict.rejects(margin))):
            break
    return verdict


def lack(agreement: Agreement) -> str:
    """Describe the disagreement."""
    if agreement.error is None:
        return "are not numbers"
    if agreement.error > BARS[agreement.precision]:
        return f"are {agreement.error:.1%} off"
    return f"name another class for {1 - agreement.same_decided:.0%} of the images that are clear"


def finished(device: torch.device) -> None:
    """Synchronise with a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
