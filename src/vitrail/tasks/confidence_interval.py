"""Confidence intervals: of a proportion (Wilson), of F1 derived from it, of the difference of two paired ones."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

Z95 = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % on each side."""


class Rate(NamedTuple):
    """A proportion with its 95 % confidence interval; `value` is None if nothing was counted.

    Args:
        value: the proportion.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float | None
    low: float
    high: float


def wilson(hits: int, total: int, z: float = Z95) -> Rate:
    r"""Return `hits / total` with Wilson's score interval.

    Formula: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Wilson 1927. Unlike p ± z·sqrt(p(1-p)/n) it stays inside 0..1 and has a positive width at p = 0 and p = 1, which
    matters for good classifiers.

    Example:
        >>> rate = wilson(10, 10)
        >>> rate.value, round(rate.low, 3), rate.high
        (1.0, 0.722, 1.0)
        >>> wilson(0, 0)
        Rate(value=None, low=0.0, high=1.0)
    """
    if total == 0:
        return Rate(None, 0.0, 1.0)
    share = hits / total
    centre = share + z * z / (2 * total)
    reach = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    low = 0.0 if hits == 0 else (centre - reach) / scale  # exactly 0 and 1 at the ends, not 1e-17
    high = 1.0 if hits == total else (centre + reach) / scale
    return Rate(share, low, high)


def f1_interval(hits: int, wrong: int) -> Rate:
    """Return F1 with an interval, from `hits` (true positives) and `wrong` (false positives and false negatives).

    F1 = 2J / (1 + J) rises with J = hits / (hits + wrong), which is a proportion, so Wilson's interval of J maps to one
    of F1.

    Example:
        >>> f1_interval(8, 4).value
        0.8
    """
    share = wilson(hits, hits + wrong)
    if share.value is None:
        return share
    return Rate(*(2 * value / (1 + value) for value in (share.value, share.low, share.high)))


def paired_difference(one: Sequence[bool], other: Sequence[bool], z: float = Z95) -> Rate:
    r"""Return the difference of two proportions over the same samples, with its interval.

    Formula: d = (b - c) / n, s² = (b + c - (b - c)² / n) / n², interval d ± (z s + 1/2n), with b samples that only
    `one` gets right and c that only `other` does: samples that both get right do not tell them apart.

    Wald's interval for McNemar's table with the correction for continuity; Fagerland, Lydersen and Laake 2014.

    Example:
        >>> rate = paired_difference([True] * 8 + [False] * 2, [True] * 5 + [False] * 5)
        >>> rate.value, round(rate.low, 2), round(rate.high, 2)
        (0.3, -0.03, 0.63)
    """
    pairs = list(zip(one, other, strict=True))
    n, gain = len(pairs), sum(bool(a) > bool(b) for a, b in pairs)
    loss = sum(bool(a) < bool(b) for a, b in pairs)
    if n == 0:
        return Rate(None, -1.0, 1.0)
    reach = z * sqrt(gain + loss - (gain - loss) ** 2 / n) / n + 1 / (2 * n)
    share = (gain - loss) / n
    return Rate(share, share - reach, share + reach)
