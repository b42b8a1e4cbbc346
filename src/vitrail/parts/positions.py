"""Where a token sits, told to the model: tables added to tokens, biases added to scores."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, interpolate

from vitrail.grid import Grid, may_be_nonzero
from vitrail.layouts import Layout
from vitrail.shapes import Bias, Heads, Tokens


class Position(Protocol):
    """How position reaches attention; each method has a null default in `NoPosition`."""

    def rotate(self, q: Tensor, k: Tensor, grid: Layout) -> tuple[Tensor, Tensor]:
        """Turn queries and keys by their place."""
        ...

    def bias(self, q: Tensor, grid: Layout) -> Tensor | None:
        """Return an addend to the scores of queries and keys on `grid`."""
        ...


class NoPosition(nn.Module):
    """Attention that does not know where its tokens sit."""

    def rotate(self, q: Heads, k: Tensor, grid: Layout) -> tuple[Tensor, Tensor]:
        """Leave queries and keys as they are."""
        return q, k

    def bias(self, q: Heads, grid: Layout) -> Bias | None:
        """Add nothing."""
        return None


class RelativePositionBias(NoPosition):
    """A learned bias for each head and each offset between two cells.

    B[i, j] = table[y_i - y_j + H - 1, x_i - x_j + W - 1]

    Swin Transformer, section 3.2, equation 4. A grid smaller than the table reads the entries of its own offsets.

    Args:
        num_heads: number of heads h.
        size: rows and columns (H, W) of the largest grid.

    Example:
        >>> position = RelativePositionBias(num_heads=3, size=(7, 7))
        >>> position.table.shape, position.bias(torch.zeros(1, 3, 49, 8), Grid(7, 7)).shape
        (torch.Size([169, 3]), torch.Size([3, 49, 49]))
    """

    index: Tensor

    def __init__(self, num_heads: int, size: tuple[int, int]):
        super().__init__()
        self.size = size
        self.table = nn.Parameter(torch.empty((2 * size[0] - 1) * (2 * size[1] - 1), num_heads))
        self.register_buffer("index", relative_index(*size), persistent=False)
        nn.init.trunc_normal_(self.table, std=0.02)

    def bias(self, q: Heads, grid: Layout) -> Bias | None:
        """Look up the offsets of the grid: `(h, N, N)`."""
        assert isinstance(grid, Grid), grid
        index = self.index[: grid.h, : grid.w, : grid.h, : grid.w].flatten(2, 3).flatten(0, 1)  # (hw, hw)
        # `embedding` and not an index: its gradient is summed in a fixed order, on every device.
        return embedding(index, self.table).permute(2, 0, 1)  # (N, N, h) -> (h, N, N)


def relative_index(h: int, w: int) -> Tensor:
    """Return the row of the bias table for each pair of cells, `(h, w, h, w)`, query first.

    Example:
        >>> relative_index(1, 3)[0, :, 0].tolist()  # key minus query, from -2 to 2, as rows 0 to 4
        [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    """
    y, x = torch.arange(h), torch.arange(w)
    dy = y[:, None, None, None] - y[None, None, :, None] + h - 1
    dx = x[None, :, None, None] - x[None, None, None, :] + w - 1
    return dy * (2 * w - 1) + dx


class LearnedPosition(nn.Module):
    """A learned vector for each place, added to the tokens; resized when the grid is another.

    x + table, the cells' part of the table resized by antialiased bicubic interpolation.

    "An Image is Worth 16x16 Words", section 3.1 and, for the resizing, 3.2. The paper's code resizes bilinearly; the
    bicubic rule is the one that today's weights were fine-tuned with.

    Args:
        dim: channels C.
        grid: the grid that the table was learned on; its prefix tokens have places of their own.
    """

    mode = "bicubic"

    def __init__(self, dim: int, grid: Grid):
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(1, grid.tokens, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Add each token's place."""
        return x + resize_position(self.table, self.grid, grid, self.mode), grid


class BilinearPosition(LearnedPosition):
    """A learned vector for each place, resized by plain bilinear interpolation.

    "Pyramid Vision Transformer", section 3.4 and the authors' code.

    Args:
        dim: channels C.
        grid: the grid that the table was learned on; its prefix tokens have places of their own.
    """

    mode = "bilinear"


def resize_position(table: Tensor, old: Grid, new: Grid, mode: str = "bicubic") -> Tensor:
    """Resize the cells of a `(1, N, C)` position table from the grid `old` to `new`; the prefix stays.

    The bicubic filter is antialiased, the bilinear one is not. While a program of any size is exported the former is a
    product with a matrix for each axis, since runtimes differ in the antialiased filter.

    Raises:
        AssertionError: if the two grids have different prefixes.

    Example:
        >>> resize_position(torch.zeros(1, 1 + 4, 8), Grid(2, 2, 1), Grid(3, 4, 1)).shape
        torch.Size([1, 13, 8])
    """
    assert old.prefix == new.prefix, (old, new)
    if not may_be_nonzero(new.h - old.h, new.w - old.w):
        return table
    cells = old.cells(table).permute(0, 3, 1, 2).float()  # (1, h, w, C) -> (1, C, h, w)
    if mode == "bicubic" and not (type(new.h) is int and type(new.w) is int):
        cells = cubic_weights(old.h, new.h, cells) @ cells @ cubic_weights(old.w, new.w, cells).mT
    else:
        cells = interpolate(cells, size=(new.h, new.w), mode=mode, antialias=mode == "bicubic")
    return new.replace_cells(table, cells.permute(0, 2, 3, 1).to(table.dtype))  # (1, C, h, w) -> (1, h, w, C)


def cubic_weights(old: int, new: int | torch.SymInt, like: Tensor) -> Tensor:
    """Return the matrix `(new, old)` of the antialiased bicubic filter along an axis, `new` maybe symbolic.

    Cell i of the new axis is centred at (i + 0.5) s of the old one, s = old / new. Its weights are Keys' cubic with
    a = -1/2, stretched by max(s, 1) and divided by their sum.

    Example:
        >>> cubic_weights(2, 1, torch.zeros(1)).tolist()
        [[0.5, 0.5]]
    """
    place = torch.arange(new, device=like.device)[:, None]
    step = old / (place.amax(0, keepdim=True) + 1).to(like.dtype)
    centres = torch.arange(old, device=like.device).to(like.dtype) + 0.5
    x = ((centres - (place.to(like.dtype) + 0.5) * step) / step.clamp(min=1)).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(1, keepdim=True)
