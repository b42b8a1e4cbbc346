"""Tables that are made once for each grid."""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

MAX_GRIDS = 8
"""Tables that are kept; the oldest makes room."""

K = TypeVar("K")
V = TypeVar("V")

_LOCK = Lock()
"""One for all: it is held for a moment, and a lock of its own could not be copied with a form."""


class GridCache(dict[K, V], Generic[K, V]):
    """What was made for the last few grids.

    Example:
        >>> tables: GridCache[int, str] = GridCache()
        >>> [tables.of(side, lambda: f"made for {side}") for side in range(10)][-1], len(tables), 0 in tables
        ('made for 9', 8, False)
    """

    def of(self, grid: K, make: Callable[[], V]) -> V:
        """Return the table of a grid, made if it is not there; several threads may ask at once."""
        try:
            return self[grid]
        except KeyError:
            table = make()
        with _LOCK:
            while len(self) >= MAX_GRIDS:
                del self[next(iter(self))]
            self[grid] = table
        return table
