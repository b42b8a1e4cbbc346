"""Where cells lie in the image, and how the cells of a coarser grid cover those of a finer one."""

from itertools import takewhile

import torch
from torch import Tensor

from vitrail.grid import Grid


def cell_size(extent: tuple[int, int], grid: Grid) -> tuple[int, int]:
    """Return rows and columns of the image (or of a finer grid) that one cell covers.

    A grid is the image's size over the cell's, rounded up. Where the image is a whole number of equal squares, they
    are the cells. Else it was padded, and of the sizes that fit the one that two divides most often is taken, the same
    for rows and columns where that is possible.

    Example:
        >>> cell_size((224, 224), Grid(14, 14)), cell_size((33, 64), Grid(3, 4)), cell_size((10, 3), Grid(5, 3))
        ((16, 16), (16, 16), (2, 1))
    """
    if extent[0] * grid.w == extent[1] * grid.h and extent[0] % grid.h == 0:
        return extent[0] // grid.h, extent[1] // grid.w
    rows, columns = (_candidates(n, cells) for n, cells in zip(extent, (grid.h, grid.w), strict=True))
    both = [size for size in rows if size in columns]
    return (_evenest(both), _evenest(both)) if both else (_evenest(rows), _evenest(columns))


def _candidates(extent: int, cells: int) -> list[int]:
    smallest = -(-extent // cells)
    sizes = range(smallest, 2 * smallest)  # with one cell every larger size fits too; none beyond the double is of use
    return list(takewhile(lambda size: -(-extent // size) == cells, sizes)) or [smallest]


def _evenest(sizes: list[int]) -> int:
    return max(sizes, key=lambda size: size & -size)


def centres(grid: Grid, cell: tuple[int, int]) -> Tensor:
    """Return the centre of each cell in pixels from the image's upper left corner, `(h * w, 2)`: row, column.

    Example:
        >>> centres(Grid(1, 2), (16, 16)).tolist()
        [[8.0, 8.0], [8.0, 24.0]]
    """
    y = (torch.arange(grid.h) + 0.5) * cell[0]
    x = (torch.arange(grid.w) + 0.5) * cell[1]
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)  # (h, w, 2) -> (hw, 2)


def owner_of_cells(fine: Grid, coarse: Grid) -> Tensor:
    """Return the token of `coarse` for each token of `fine`, `(N_fine,)`; prefix tokens map to themselves.

    Example:
        >>> owner_of_cells(Grid(2, 3), Grid(1, 2)).tolist()
        [0, 0, 1, 0, 0, 1]
    """
    assert fine.prefix == coarse.prefix, (fine, coarse)
    height, width = cell_size((fine.h, fine.w), coarse)
    rows, columns = torch.arange(fine.h) // height, torch.arange(fine.w) // width
    cells = rows[:, None] * coarse.w + columns + coarse.prefix  # (h, w)
    return torch.cat([torch.arange(fine.prefix), cells.flatten()])
