"""Learning-rate schedules and run lengths.

Every schedule is a pure function of one number, the share of the run that is done, so it has no state to save and a
resumed run continues at the exact rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Protocol

from vitrail.errors import VitrailError, unknown

Shape = Callable[[float, float], float]
"""From the share of the decay and the share of the warm-up to a factor on the peak rate."""


def cosine(share: float, warmup: float = 0.0) -> float:
    """Fall from 1 to 0 along half a cosine (Loshchilov and Hutter 2017, SGDR, without restarts).

    Example:
        >>> [round(cosine(share), 3) for share in (0.0, 0.5, 1.0)]
        [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + cos(pi * share))


def linear(share: float, warmup: float = 0.0) -> float:
    """Fall from 1 to 0 along a straight line.

    Example:
        >>> linear(0.25)
        0.75
    """
    return 1 - share


def constant(share: float, warmup: float = 0.0) -> float:
    """Stay at 1.

    Example:
        >>> constant(0.25)
        1.0
    """
    return 1.0


def inverse_sqrt(share: float, warmup: float) -> float:
    """Fall with the inverse square root of the number of updates, 1 at the end of the warm-up.

    "Attention Is All You Need", section 5.3.

    Example:
        >>> inverse_sqrt(1.0, warmup=0.25)
        0.5
    """
    return sqrt(warmup / (warmup + share * (1 - warmup)))


SHAPES: dict[str, Shape] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "inverse_sqrt": inverse_sqrt,
}


@dataclass(frozen=True)
class Schedule:
    """Learning rate by share of the run: linear warm-up to `lr`, then `shape` down to `min_lr`.

    Args:
        lr: peak learning rate.
        min_lr: final learning rate.
        warmup: length of the warm-up as a share of the run, in [0, 1).
        shape: `cosine`, `linear`, `constant` or `inverse_sqrt`.

    Example:
        >>> schedule = Schedule(lr=1.0, min_lr=0.1, warmup=0.2)
        >>> [round(schedule.rate(share), 3) for share in (0.1, 0.2, 0.6, 1.0)]
        [0.5, 1.0, 0.55, 0.1]
    """

    lr: float
    min_lr: float = 0.0
    warmup: float = 0.0
    shape: str = "cosine"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise unknown("scheduler", self.shape, SHAPES)
        if self.shape == "inverse_sqrt" and self.warmup <= 0:
            raise VitrailError("inverse_sqrt falls from the end of the warm-up, and warmup is 0. Try --warmup 0.1.")

    def rate(self, share: float) -> float:
        """Return the learning rate after `share` of the run."""
        share = min(max(share, 0.0), 1.0)
        if share < self.warmup:
            return self.lr * share / self.warmup
        fall = SHAPES[self.shape]((share - self.warmup) / (1 - self.warmup), self.warmup)
        return self.min_lr + (self.lr - self.min_lr) * fall


class Length(Protocol):
    """Length of a run."""

    def share(self, step: int, seconds: float) -> float:
        """Return the position in the run of the update after `step` updates and `seconds`, in [0, 1]."""
        ...

    def done(self, step: int, seconds: float) -> float:
        """Return the share of the run that is done after `step` updates and `seconds`, in [0, 1]."""
        ...

    def over(self, step: int, seconds: float) -> bool:
        """Return whether the run ends after `step` updates and `seconds`."""
        ...


@dataclass(frozen=True)
class Steps:
    """A run of a fixed number of updates. Resuming it is exact.

    The rate of update `i` of `n` is taken at the middle of its step, `(i + 1/2) / n`, so that neither the first nor the
    last update has a rate of zero.
    """

    total: int

    def share(self, step: int, seconds: float) -> float:
        return (step + 0.5) / self.total

    def done(self, step: int, seconds: float) -> float:
        return min(step / self.total, 1.0)

    def over(self, step: int, seconds: float) -> bool:
        return step >= self.total


@dataclass(frozen=True)
class Seconds:
    """A run of a fixed time; the schedule is a function of the time spent.

    It ends on time on any machine. A resumed run continues from the time already spent; it is not bit-exact, because
    the time of a step varies.
    """

    budget: float

    def share(self, step: int, seconds: float) -> float:
        return min(seconds / self.budget, 1.0)

    def done(self, step: int, seconds: float) -> float:
        return self.share(step, seconds)

    def over(self, step: int, seconds: float) -> bool:
        return seconds >= self.budget
