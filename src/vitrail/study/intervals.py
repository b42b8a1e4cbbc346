"""Intervals over paired seeds and over samples, and a ranking that refuses where they do not separate."""

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log, nan, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean with its 95 % interval; one value has no interval (its ends are infinite).

    Args:
        mean: the mean.
        low: lower end.
        high: upper end.
        count: number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def sign(self) -> int:
        """1 above zero, -1 below it, 0 if the interval holds zero (or there is none)."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return self.count > 1 and isfinite(self.low)


def mean_interval(values: Sequence[float], comparisons: int = 1) -> Estimate:
    r"""Return the mean with Student's interval, `m ± t_{n-1} s / sqrt(n)`.

    Two equal values have no interval: accuracies come in steps, and two that agree by chance would give one of width 0.

    Args:
        values: one a seed.
        comparisons: intervals that are to hold together (Bonferroni).

    Example:
        >>> found = mean_interval([1.0, 2.0, 3.0])
        >>> round(found.low, 3), round(found.high, 3)
        (-0.484, 4.484)
        >>> mean_interval([1.0]).known
        False
    """
    n = len(values)
    if n < 2 or (n == 2 and values[0] == values[1] != 0):
        return Estimate(values[0] if values else nan, -np.inf, np.inf, n)
    mean = float(np.mean(values))
    reach = quantile_t(n - 1, comparisons) * float(np.std(values, ddof=1)) / sqrt(n)
    return Estimate(mean, mean - reach, mean + reach, n)


def share_interval(values: Sequence[float]) -> Estimate:
    """Return the mean of shares with Student's interval, cut to 0 to 1.

    Example:
        >>> share_interval([0.9, 1.0]).high, share_interval([0.9]).known
        (1.0, False)
    """
    found = mean_interval(values)
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0)) if found.known else found


def ratio_interval(values: Sequence[float], comparisons: int = 1) -> Estimate:
    """Return the geometric mean of ratios, with Student's interval of their logarithms.

    Example:
        >>> round(ratio_interval([0.5, 2.0]).mean, 3)
        1.0
    """
    logs = mean_interval([log(value) for value in values], comparisons)
    return Estimate(exp(logs.mean), float(np.exp(logs.low)), float(np.exp(logs.high)), logs.count)


def difference(one: Sequence[float], other: Sequence[float], comparisons: int = 1) -> Estimate:
    """Return the mean of `one - other` over paired values, with Student's interval."""
    return mean_interval([a - b for a, b in zip(one, other, strict=True)], comparisons)


def quantile_t(freedom: int, comparisons: int = 1) -> float:
    """Return the quantile of Student's distribution that leaves 5 % / comparisons outside."""
    return float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / (2 * comparisons)))


def bootstrap(one: Sequence[float], other: Sequence[float], comparisons: int = 1, draws: int = 4000) -> Estimate:
    """Return the mean of `one - other` over paired samples, with the percentile interval of a bootstrap.

    For scores of images, which are many and not normal; seeds are too few for it.

    Example:
        >>> bootstrap([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
        Estimate(mean=1.0, low=1.0, high=1.0, count=3)
    """
    gaps = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    if len(gaps) < 2:
        return Estimate(float(gaps.mean()) if len(gaps) else nan, -np.inf, np.inf, len(gaps))
    drawn = np.random.default_rng(0).integers(0, len(gaps), (draws, len(gaps)))
    tail = (1 - CONFIDENCE) / (2 * comparisons)
    low, high = np.quantile(gaps[drawn].mean(axis=1), [tail, 1 - tail])
    return Estimate(float(gaps.mean()), float(low), float(high), len(gaps))


class Ranking(NamedTuple):
    """Conditions by their mean, and which of them cannot be told from the first.

    Args:
        order: names, the best first.
        tied: names that the intervals do not separate from the first, the first included.
        gaps: how far each is below the first, with its interval.
    """

    order: list[str]
    tied: list[str]
    gaps: dict[str, Estimate]

    @property
    def decided(self) -> bool:
        """Whether the first one is better than all others."""
        return len(self.tied) == 1 and len(self.order) > 1


def rank(values: Mapping[str, Mapping[int, float]], higher: bool = True) -> Ranking:
    """Rank conditions that were measured with the same seeds.

    Each is compared with the best by the paired differences of their seeds. The standard error is the larger of the
    pair's own and of the one pooled over all conditions (two-way layout of conditions and seeds without interaction);
    intervals hold together for all comparisons with the best (Bonferroni).

    Args:
        values: by condition, by seed; only seeds that every condition has are compared.
        higher: whether more is better.

    Example:
        >>> rank({"a": {0: 0.9, 1: 0.92}, "b": {0: 0.1, 1: 0.12}}).tied
        ['a']
        >>> rank({"a": {0: 0.9, 1: 0.92}, "b": {0: 0.95, 1: 0.86}}).tied
        ['a', 'b']
    """
    seeds = sorted(set.intersection(*(set(one) for one in values.values()))) if values else []
    table = np.array([[one[seed] for seed in seeds] for one in values.values()]) * (1 if higher else -1)
    names = list(values)
    if not seeds:
        return Ranking(names, names, {})
    means, n, k = table.mean(axis=1), len(seeds), len(names)
    order = sorted(range(k), key=lambda i: -means[i])
    best = order[0]
    gaps: dict[str, Estimate] = {}
    if n > 1 and k > 1:
        residual = table - means[:, None] - table.mean(axis=0) + table.mean()
        pooled = sqrt(2 * float((residual**2).sum()) / ((k - 1) * (n - 1)) / n)
        for i in order[1:]:
            gap = table[best] - table[i]
            own = float(gap.std(ddof=1)) / sqrt(n)
            own_reach = quantile_t(n - 1, k - 1) * own if own > pooled else 0.0
            reach = max(own_reach, quantile_t((k - 1) * (n - 1), k - 1) * pooled)
            gaps[names[i]] = Estimate(float(gap.mean()), float(gap.mean()) - reach, float(gap.mean()) + reach, n)
    tied = [names[i] for i in order if i == best or names[i] not in gaps or gaps[names[i]].sign < 1]
    return Ranking([names[i] for i in order], tied, gaps)
