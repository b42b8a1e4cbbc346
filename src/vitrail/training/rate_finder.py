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
    with untouched(run):
        for batch, i in zip(_batches(run), range(steps), strict=False):
            rate = LOWEST * (HIGHEST / LOWEST) ** (i / (steps - 1))
            loss = try_step(run, batch, rate)
            run.at.step += 1
            if not isfinite(loss) or loss > 4 * min([loss, *losses]):
                break
            rates.append(rate)
            losses.append(loss)
        run.at.step = 0
    calm = smooth(losses, width=max(1, len(losses) // 16))
    return RateCurve(tuple(rates), tuple(calm), steepest(rates, calm))


def smooth(losses: list[float], width: int) -> list[float]:
    """Return the mean of each loss and its `width` neighbours on either side.

    Example:
        >>> smooth([1.0, 4.0, 1.0, 1.0], width=1)
        [2.5, 2.0, 2.0, 1.0]
    """
    windows = [losses[max(i - width, 0) : i + width + 1] for i in range(len(losses))]
    return [sum(window) / len(window) for window in windows]


def steepest(rates: list[float], losses: list[float]) -> float:
    """Return the rate at which the loss falls fastest over the logarithm of the rate, before its least value.

    The slope at a rate is taken across an eighth of the rates around it, so that a lucky batch does not decide.

    Example:
        >>> steepest([1e-5, 1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.9, 1.2, 1.1, 5.0])
        0.0001
    """
    least = losses.index(min(losses)) if losses else 0
    span = max(1, len(losses) // 8)
    falls = [(losses[i + span] - losses[i]) / log(rates[i + span] / rates[i]) for i in range(least - span + 1)]
    if not falls or min(falls) >= 0:
        raise VitrailError(
            "The learning-rate finder saw no fall of the loss.\n"
            "Give lr yourself: 1e-3 is a common start, 1e-4 to fine-tune."
        )
    return rates[falls.index(min(falls)) + span // 2]


def _batches(run: Session) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from run.train_data.epoch(epoch)
        epoch += 1
