"""The learning-rate finder: let the rate climb until the loss breaks, and take it where the loss fell fastest.

"Cyclical Learning Rates for Training Neural Networks", Smith 2017, section 3.3, in the exponential form that fastai
made common. The session is left as it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, log
from typing import Any

from vitrail.errors import VitrailError
from vitrail.training.session import Session
from vitrail.training.trial import try_step, untouched

LOWEST, HIGHEST = 1e-6, 1.0


@dataclass(frozen=True)
class RateCurve:
    """What the finder saw.

    Args:
        rates: the rates, growing.
        losses: the smoothed loss at each.
        suggestion: the rate of the steepest fall.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_rate(run: Session, steps: int = 100) -> RateCurve:
    """Try growing rates on a run, one batch each.

    Args:
        run: a session before its first update.
        steps: most batches to use; it ends early once the loss is four times the least.

    Raises:
        VitrailError: the loss never fell, so no rate can be suggested.
    """
    rates: list[float] = []
    losses: list[float] = []
    smooth, weight = 0.0, 0.0
    with untouched(run):
        for batch, i in zip(_batches(run), range(steps), strict=False):
            rate = LOWEST * (HIGHEST / LOWEST) ** (i / (steps - 1))
            loss = try_step(run, batch, rate)
            run.at.step += 1
            if not isfinite(loss):
                break
            smooth, weight = 0.9 * smooth + 0.1 * loss, 0.9 * weight + 0.1
            rates.append(rate)
            losses.append(smooth / weight)
            if losses[-1] > 4 * min(losses):
                break
        run.at.step = 0
    return RateCurve(tuple(rates), tuple(losses), steepest(rates, losses))


def steepest(rates: list[float], losses: list[float]) -> float:
    """Return the rate at which the loss falls fastest over the logarithm of the rate, before its least value.

    Example:
        >>> steepest([1e-5, 1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.9, 1.2, 1.1, 5.0])
        0.0001
    """
    least = losses.index(min(losses)) if losses else 0
    falls = [(losses[i + 1] - losses[i]) / log(rates[i + 1] / rates[i]) for i in range(least)]
    if not falls or min(falls) >= 0:
        raise VitrailError(
            "The learning-rate finder saw no fall of the loss.\n"
            "Give lr yourself: 1e-3 is a common start, 1e-4 to fine-tune."
        )
    return rates[falls.index(min(falls))]


def _batches(run: Session) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from run.train_data.epoch(epoch)
        epoch += 1
