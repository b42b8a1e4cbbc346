"""Tables of a map that the blocks of a stage share in an exported program."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

from vitrail.grid import Grid

Found = TypeVar("Found")


class SharedTables:
    """The tables of the map that is computed at present: the blocks of a stage are given one and the same grid.

    Example:
        >>> shared, grid = SharedTables(), Grid(2, 3)
        >>> shared.of(grid, "cells", lambda: grid.h * grid.w), shared.of(grid, "cells", lambda: 0)
        (6, 6)
    """

    def __init__(self) -> None:
        self.grid: Grid | None = None
        self.tables: dict[Any, Any] = {}

    def of(self, grid: Grid, key: Hashable, make: Callable[[], Found]) -> Found:
        """Return the result of `make`, computed once for a grid and a key."""
        if grid is not self.grid:
            self.grid, self.tables = grid, {}
        if key not in self.tables:
            self.tables[key] = make()
        return self.tables[key]


def length(place: Tensor) -> Tensor:
    """Return the number of places 0, 1, 2, ... as a tensor of one integer.

    Exporters know a symbolic size as an argument of a shape only, so sizes that meet tensors are tensors themselves.

    Example:
        >>> import torch
        >>> length(torch.arange(5)).tolist()
        [5]
    """
    return place.amax(0, keepdim=True) + 1
