"""Grid of image tokens: the layout that is passed with `(B, N, C)` tokens.

A token sequence alone has lost the shape of its image. `Grid` keeps it: `h` rows and `w` columns of cells, row by row,
after `prefix` tokens without a position (class, distillation, registers).
A one-dimensional sequence of `n` tokens is `Grid(1, n)`.
"""

from typing import NamedTuple

from torch import Tensor, cat


class Grid(NamedTuple):
    """Rows, columns and prefix of a token sequence: `N = prefix + h * w`.

    Example:
        >>> import torch
        >>> grid = Grid(2, 3, prefix=1)
        >>> grid.tokens
        7
        >>> grid.cells(torch.zeros(5, 7, 8)).shape
        torch.Size([5, 2, 3, 8])
    """

    h: int
    w: int
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Length N of the sequence."""
        return self.prefix + self.h * self.w

    def cells(self, x: Tensor) -> Tensor:
        """View the cells of `(B, N, C)` tokens as a `(B, h, w, C)` map, without the prefix."""
        return x[:, self.prefix :].unflatten(1, (self.h, self.w))  # (B, hw, C) -> (B, h, w, C)

    def key_padding(self, like: Tensor) -> Tensor | None:
        """Return None: no token of an image is padding."""
        return None

    def replace_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """Replace the cells of `x` by a `(B, h, w, C)` map; the prefix is unchanged."""
        flat = cells.flatten(1, 2)  # (B, h, w, C) -> (B, hw, C)
        return flat if self.prefix == 0 else cat([x[:, : self.prefix], flat], dim=1)


def may_be_nonzero(*numbers: object) -> bool:
    """Return whether some number is not zero, or is symbolic, as sizes are while a program of any size is exported.

    Example:
        >>> may_be_nonzero(0, 3), may_be_nonzero(0)
        (True, False)
    """
    return any(type(number) is not int or number != 0 for number in numbers)


def to_grid(cells: Tensor) -> tuple[Tensor, Grid]:
    """Flatten a `(B, h, w, C)` map to `(B, h * w, C)` tokens and their grid.

    Example:
        >>> import torch
        >>> tokens, grid = to_grid(torch.zeros(1, 2, 3, 8))
        >>> tokens.shape, grid
        (torch.Size([1, 6, 8]), Grid(h=2, w=3, prefix=0))
    """
    return cells.flatten(1, 2), Grid(cells.shape[1], cells.shape[2])
