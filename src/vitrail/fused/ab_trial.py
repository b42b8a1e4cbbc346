"""Two forms of a model answer the same pictures, turn by turn, until it is clear whether one may stand for the other.

    turn 1: picture 0    plain, then fast
    turn 2: picture 1    plain, then fast ...

A trial costs the answers of the form that is not taken, so it ends as soon as the gap is clear; near a line it goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.fused.accuracy import BARS, Agreement, compare

Answer = Callable[[Tensor], Tensor]
"""From pictures `(B, C, Y, X)` to logits `(B, K)`."""

Timed = Callable[[Answer, Tensor], tuple[Tensor, float]]
"""Asks about pictures, and returns the answers with the seconds that they took."""

WORTH = 1.05
"""The fast form is taken from this ratio on; below, it may be noise."""

MARGINS = (2.0, 1.5, 1.2, 1.0)
"""How many times clear of their lines speed and answers must be for the trial to end, turn by turn; the last decides.

Whatever else takes one of two cores during one of two times halves or doubles their ratio. And of 150 photographs none
had logits more than 2.2 times as far off as the median one (real ViT-Ti, bf16 and int8).
"""

COLD = 0.1
"""A first call also loads libraries and takes memory, so that one turn of fewer seconds says too little."""

MOST = 20.0
"""No form was so many times as fast: it is the plain one's first call that had something to build."""


class TrialArm:
    """What one form says of a batch, a few pictures at a time, and how long it takes.

    Args:
        answer: the form.
        images: the batch, `(B, C, Y, X)`.
        size: pictures of a turn.
        timed: asks and takes the time.

    Example:
        >>> images = torch.arange(3.0).reshape(3, 1, 1, 1)
        >>> side = TrialArm(lambda some: some.flatten(1), images, 2, lambda answer, some: (answer(some), 1.0))
        >>> side.ask(0)
        >>> side.answers.tolist(), side.least
        ([[0.0], [1.0]], 1.0)
    """

    def __init__(self, answer: Answer, images: Tensor, size: int, timed: Timed):
        self.answer, self.size = answer, min(size, len(images))
        self._parts = [part for part in images.split(self.size) if len(part) == self.size]
        self._timed = timed
        self._seconds: list[float] = []
        self._said: list[Tensor] = []

    def ask(self, turn: int) -> None:
        """Have a turn, unless it was had; after the last pictures the first come again, only to be timed."""
        if turn < len(self._seconds):
            return
        logits, seconds = self._timed(self.answer, self._parts[turn % len(self._parts)])
        self._seconds.append(seconds)
        if turn < len(self._parts):
            self._said.append(logits)

    @property
    def answers(self) -> Tensor:
        """The logits of the pictures that it was asked about, the first of the batch."""
        return torch.cat(self._said)

    @property
    def least(self) -> float:
        """Seconds of the shortest turn: the one that other work and first calls disturbed least."""
        return min(self._seconds)


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Args:
        agreement: how near the answers are.
        speedup: how many times as fast as the plain form the fast one was.
    """

    agreement: Agreement
    speedup: float

    @property
    def faster(self) -> bool:
        """Whether the speed is worth it."""
        return self.speedup >= WORTH

    @property
    def reason(self) -> str | None:
        """Why the fast form is not to be taken; None where it is."""
        if not self.agreement.holds:
            return f"the answers of the fast one in {self.agreement.precision} {lack(self.agreement)}"
        if not self.faster:
            return f"the fast one in {self.agreement.precision} is no faster here ({self.speedup:.2f}x)"
        return None

    def accepts(self, margin: float) -> bool:
        """Say whether the fast form is to be taken even if its speed and its error were so many times worse."""
        near = self.agreement.holds and (self.agreement.error or 0.0) * margin <= BARS[self.agreement.precision]
        return near and self.speedup >= WORTH * margin

    def rejects(self, margin: float) -> bool:
        """Say whether it is not even if it were so many times as fast, or because its answers are not numbers."""
        return self.agreement.error is None or self.speedup * margin < WORTH


def try_out(fast: TrialArm, plain: TrialArm, truth: TrialArm, precision: str) -> TrialResult:
    """Let the forms take turns until it is clear whether the fast one is faster and agrees.

    An error beyond its bar is judged at the end: where one picture is hard to decide, all of its logits lie so close
    that rounding looks large beside their range.

    Args:
        fast: the form that may answer.
        plain: the one that it would stand for.
        truth: the model in fp32; often the plain form itself.
        precision: of the fast form, which sets the bar for its answers.
    """
    for turn, margin in enumerate(MARGINS):
        for side in dict.fromkeys((plain, truth, fast)):
            side.ask(turn)
        answers = fast.answers
        verdict = TrialResult(compare(answers, truth.answers[: len(answers)], precision), plain.least / fast.least)
        warm = turn > 0 or (plain.least >= COLD and WORTH <= verdict.speedup <= MOST)
        if verdict.agreement.error is None or (warm and (verdict.accepts(margin) or verdict.rejects(margin))):
            break
    return verdict


def lack(agreement: Agreement) -> str:
    """Say what answers lack."""
    if agreement.error is None:
        return "are not numbers"
    if agreement.error > BARS[agreement.precision]:
        return f"are {agreement.error:.1%} off"
    return f"name another class for {1 - agreement.same_decided:.0%} of the pictures that are clear"


def finished(device: torch.device) -> None:
    """Wait until a device has done all that it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
