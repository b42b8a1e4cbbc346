"""Cache of tensors for each grid."""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

MAX_GRIDS = 8
"""Entries of a cache; the oldest is evicted."""

K = TypeVar("K")
V = TypeVar("V")

_LOCK = Lock()
"""One for all caches: it is held briefly, and a lock in an instance could not be copied with a model."""


class GridCache(dict[K, V], Generic[K, V]):
    """Values for the last few grids.

    Example:
        >>> tables: GridCache[int, str] = GridCache()
        >>> [tables.of(side, lambda: f"made for {side}") for side in range(10)][-1], len(tables), 0 in tables
        ('made for 9', 8, False)
    """

    def of(self, grid: K, make: Callable[[], V]) -> V:
        """Return the value of a grid, made on first use; thread-safe."""
        try:
            return self[grid]
        except KeyError:
            table = make()
        with _LOCK:
            while len(self) >= MAX_GRIDS:
                del self[next(iter(self))]
            self[grid] = table
        return table
