"""Robust statistics of timings: median and quartiles."""

from collections.abc import Iterable
from typing import NamedTuple


class Quantiles(NamedTuple):
    """A median with its quartiles.

    Median and quartiles of a few measurements are robust to a single outlier (another load on the machine); mean and
    standard deviation are not.

    Args:
        median: second quartile.
        low: first quartile.
        high: third quartile.
        count: number of values.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Quantiles":
        """Return median and quartiles of values.

        Example:
            >>> Quantiles.of([3.0, 1.0, 2.0, 100.0, 4.0])
            Quantiles(median=3.0, low=2.0, high=4.0, count=5)
        """
        ordered = sorted(values)
        return cls(quantile(ordered, 0.5), quantile(ordered, 0.25), quantile(ordered, 0.75), len(ordered))

    @property
    def noise(self) -> float:
        """Half the interquartile range as a share of the median: the `± 3 %` of a table."""
        return (self.high - self.low) / 2 / self.median


def quantile(values: Iterable[float], share: float) -> float:
    """Return the quantile at `share`, with linear interpolation.

    Example:
        >>> quantile([10.0, 20.0, 30.0], 0.95)
        29.0

    Raises:
        ValueError: if there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values to take a quantile of")
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])
