"""Fewer keys than queries: the map is reduced before it is projected to keys and values. `(x, grid) -> (B, M, C)`."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.grid import Grid
from vitrail.parts.adaptive_pooling import adaptive_mean
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class NoReduction(nn.Module):
    """Every token is a key."""

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Return the tokens unchanged."""
        return x

    def coverage(self, grid: Grid) -> Tensor:
        """Return the share of each token in each key, `(M, N)`; rows sum to one."""
        return torch.eye(grid.tokens)


class ConvReduction(NoReduction):
    """One key for each `r x r` square of cells: a strided convolution and a norm.

    SR(x) = norm(W reshape(x, r))

    "Pyramid Vision Transformer", section 3.3, equation 4. Cells that do not fill a square are no part of a key, as in
    the authors' code; a map smaller than a square is padded with zeros to one, where their code fails.

    Args:
        dim: channels C.
        ratio: side r of a square, in cells.
        eps: epsilon of the norm.

    Example:
        >>> ConvReduction(8, ratio=2)(torch.zeros(1, 5 * 6, 8), Grid(5, 6)).shape
        torch.Size([1, 6, 8])
    """

    def __init__(self, dim: int, ratio: int, eps: float = 1e-5):
        super().__init__()
        self.ratio = ratio
        self.conv = nn.Conv2d(dim, dim, ratio, ratio)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Reduce; the grid must have no prefix."""
        cells = pad(to_map(x, grid), (0, max(self.ratio - grid.w, 0), 0, max(self.ratio - grid.h, 0)))
        return self.norm(to_tokens(self.conv(cells))[0])

    def coverage(self, grid: Grid) -> Tensor:
        """Return the share of each cell in each key, `(M, N)`."""
        rows, columns = (
            shares([(i * self.ratio, (i + 1) * self.ratio) for i in range(max(n // self.ratio, 1))], n)
            for n in (grid.h, grid.w)
        )
        return torch.kron(rows, columns)


class PooledReduction(NoReduction):
    """As many keys for every map: average pooling to `p x p`, a 1 x 1 convolution, a norm and GELU.

    "PVT v2: Improved Baselines with Pyramid Vision Transformer", section 3.2, "Linear spatial reduction attention".

    Args:
        dim: channels C.
        eps: epsilon of the norm.
        size: keys p on each side.

    Example:
        >>> PooledReduction(8)(torch.zeros(1, 5 * 6, 8), Grid(5, 6)).shape
        torch.Size([1, 49, 8])
    """

    def __init__(self, dim: int, eps: float = 1e-5, size: int = 7):
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(dim, dim, kernel_size=1)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.act = nn.GELU()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Reduce; the grid must have no prefix."""
        pooled = adaptive_mean(to_map(x, grid), self.size)
        return self.act(self.norm(to_tokens(self.conv(pooled))[0]))

    def coverage(self, grid: Grid) -> Tensor:
        """Return the share of each cell in each key, `(M, N)`."""
        rows, columns = (
            shares([(i * n // self.size, -(-(i + 1) * n // self.size)) for i in range(self.size)], n)
            for n in (grid.h, grid.w)
        )
        return torch.kron(rows, columns)


def shares(spans: list[tuple[int, int]], length: int) -> Tensor:
    """Return one row for each span of an axis: equal shares of the places in it, `(spans, length)`.

    Example:
        >>> shares([(0, 2), (2, 4)], 3).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    """
    rows = torch.zeros(len(spans), length)
    for row, (first, end) in zip(rows, spans, strict=True):
        row[first:end] = 1
    return rows / rows.sum(1, keepdim=True)
