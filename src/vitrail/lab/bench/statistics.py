"""What many times say together: the middle, and how far they lie apart."""

from collections.abc import Iterable
from typing import NamedTuple


class Quantiles(NamedTuple):
    """A median with its quartiles.

    The median and the quartiles of a few measurements move little when a neighbour on the machine spoils one of them;
    a mean and a standard deviation do.

    Args:
        median: half of the values lie below.
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
        """Summarize values.

        Example:
            >>> Quantiles.of([3.0, 1.0, 2.0, 100.0, 4.0])
            Spread(median=3.0, low=2.0, high=4.0, count=5)
        """
        ordered = sorted(values)
        return cls(quantile(ordered, 0.5), quantile(ordered, 0.25), quantile(ordered, 0.75), len(ordered))

    @property
    def noise(self) -> float:
        """Half the distance of the quartiles as a share of the median: the `± 3 %` of a table."""
        return (self.high - self.low) / 2 / self.median


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` of the values lie below, between two of them on a straight line.

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
