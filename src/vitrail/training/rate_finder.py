"""Learning-rate finder: raise the rate until the loss diverges, and suggest one well below that of the least loss.

"Cyclical Learning Rates for Training Neural Networks", Smith 2017, section 3.3, in the exponential form that fastai
made common. The trainer is restored afterwards.

The usual rule, the rate of steepest descent, is unreliable for transformers with AdamW: at rates too low to learn the
loss already falls, by the bias of the head alone, and with few images the loss varies more between batches than it
falls in a hundred updates. The rate of the least loss depends little on either (docs/log.md, learning rates found).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

from vitrail.errors import VitrailError
from vitrail.training.probe import try_step, untouched
from vitrail.training.trainer import Trainer

LOWEST, HIGHEST = 1e-6, 1.0


@dataclass(frozen=True)
class RateCurve:
    """Loss over the learning rate.

    Args:
        rates: increasing learning rates.
        losses: smoothed loss at each.
        suggestion: learning rate for training.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_rate(run: Trainer, steps: int = 100) -> RateCurve:
    """Make one update at each of a series of increasing learning rates.

    Args:
        run: a trainer before its first update.
        steps: maximum number of updates; the search ends early once the loss is four times the least.

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
    return RateCurve(tuple(rates), tuple(calm), below_the_least(rates, calm))


def smooth(losses: list[float], width: int) -> list[float]:
    """Return the mean of each loss and its `width` neighbours on either side.

    Example:
        >>> smooth([1.0, 4.0, 1.0, 1.0], width=1)
        [2.5, 2.0, 2.0, 1.0]
    """
    windows = [losses[max(i - width, 0) : i + width + 1] for i in range(len(losses))]
    return [sum(window) / len(window) for window in windows]


def below_the_least(rates: list[float], losses: list[float]) -> float:
    """Return the last rate that is at most a third of the highest one with a loss close to the minimum.

    Close: within a tenth of the total decrease, after the minimum, so that a lucky batch does not decide. A third: a
    run stays at its rate far longer than the finder does.

    Example:
        >>> below_the_least([1e-5, 1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.9, 1.2, 1.1, 5.0])
        0.001
    """
    end = losses.index(min(losses)) if losses else 0
    if end == 0:
        raise VitrailError(
            "The learning-rate finder saw no fall of the loss.\n"
            "Give lr yourself: 1e-3 is a common start, 1e-4 to fine-tune."
        )
    low = losses[end] + 0.1 * (losses[0] - losses[end])
    while end + 1 < len(losses) and losses[end + 1] <= low:
        end += 1
    return max([rate for rate in rates if rate <= rates[end] / 3], default=rates[0])


def _batches(run: Trainer) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from run.train_data.epoch(epoch)
        epoch += 1
