"""Tables that are made once for each grid."""

from collections.abc import Callable
from typing import Generic, TypeVar

KEPT = 8
"""Tables that are kept; the oldest makes room."""

K = TypeVar("K")
V = TypeVar("V")


class Tables(dict[K, V], Generic[K, V]):
    """What was made for the last few grids.

    Example:
        >>> tables: Tables[int, str] = Tables()
        >>> [tables.of(side, lambda: f"made for {side}") for side in range(10)][-1], len(tables), 0 in tables
        ('made for 9', 8, False)
    """

    def of(self, grid: K, make: Callable[[], V]) -> V:
        """Return the table of a grid, made if it is not there."""
        if grid not in self:
            if len(self) == KEPT:
                self.pop(next(iter(self)))
            self[grid] = make()
        return self[grid]
