"""Blocks of cells attend to themselves and a halo of cells around them; blocks of one cell to a neighborhood."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.grid import Grid
from vitrail.parts.attend import Attend, check_heads
from vitrail.parts.positions import NoPosition
from vitrail.shapes import Bias, FeatureMap, Heads, Tokens


class HaloPosition(NoPosition):
    """Scores of each query with learned vectors of row and column offsets inside its window.

    bias[i, j] = q_i^T (rows[y_j - y_i + W - 1] + columns[x_j - x_i + W - 1])

    "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", section 2.2. Places count from the corner
    of the block (queries) and of the window (keys).

    Args:
        head_dim: channels d of a head.
        queries: queries along a side of a block.
        window: keys W along a side of a window.
    """

    index: Tensor

    def __init__(self, head_dim: int, queries: int, window: int):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(2 * window - 1, head_dim) * head_dim**-0.5)
        self.columns = nn.Parameter(torch.randn(2 * window - 1, head_dim) * head_dim**-0.5)
        index = torch.arange(window) - torch.arange(queries)[:, None] + window - 1  # (queries, window)
        self.register_buffer("index", index, persistent=False)

    def bias(self, q: Heads, grid: Grid) -> Bias | None:
        """Return `(*B, h, n, W W)` for the `n` queries of a block, `grid` places of them."""
        q = q.unflatten(-2, (grid.h, grid.w))  # (*B, h, n, d) -> (*B, h, y, x, d)
        rows = torch.einsum("...yxd,ykd->...yxk", q, self.rows[self.index])
        columns = torch.einsum("...yxd,xkd->...yxk", q, self.columns[self.index])
        return (rows[..., :, None] + columns[..., None, :]).flatten(-2).flatten(-3, -2)


class SplitHaloPosition(NoPosition):
    """Row offsets score the first half of each query, column offsets the second, for blocks of one cell.

    bias[i, j] = q_i^T concat(rows[y_j], columns[x_j]), with a table for each head

    "Stand-Alone Self-Attention in Vision Models", section 2.2, equation 3.

    Args:
        num_heads: heads h.
        head_dim: channels d of a head, an even number.
        window: keys k along a side of a window.
    """

    def __init__(self, num_heads: int, head_dim: int, window: int):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(num_heads, window, head_dim // 2))
        self.columns = nn.Parameter(torch.randn(num_heads, window, head_dim - head_dim // 2))

    def bias(self, q: Heads, grid: Grid) -> Bias | None:
        """Return `(*B, h, 1, k k)`."""
        first, second = q.split([self.rows.shape[-1], self.columns.shape[-1]], dim=-1)
        rows, columns = first @ self.rows.mT, second @ self.columns.mT  # (*B, h, 1, k)
        return (rows[..., :, None] + columns[..., None, :]).flatten(-2)


class HaloAttention(nn.Module):
    """Multi-head attention of `b x b` blocks of cells to windows that reach `halo` cells further on every side.

    y_i = concat_h softmax(s q_i^T k_j + bias) v_j, s = 1 / sqrt(d), j in the window of the block of i

    "Scaling Local Self-Attention for Parameter Efficient Visual Backbones", section 2.1. As in timm, keys off the map
    are zeros that take part in the softmax. A map is padded with zeros to whole blocks, so every size works. There is
    no output projection: the 1 x 1 convolution of a bottleneck follows.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        block: side b of a block in cells.
        halo: cells that a window has beyond its block on every side.
        stride: step between two queries, a divisor of b; the map shrinks by it.
        position: addend to the scores.

    Example:
        >>> HaloAttention(8, 2, block=4, halo=1)(torch.randn(2, 5 * 6, 8), Grid(5, 6)).shape
        torch.Size([2, 30, 8])
    """

    def __init__(
        self, dim: int, num_heads: int, block: int, halo: int, stride: int = 1, position: NoPosition | None = None
    ):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.block, self.halo, self.stride = num_heads, block, halo, stride
        self.q, self.kv = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.position = position or HaloPosition(dim // num_heads, block // stride, block + 2 * halo)
        self.attend = Attend()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells; the grid must have no prefix. With a stride the result has ceil(h / s) x ceil(w / s) cells."""
        cells = pad(grid.cells(x), (0, 0, 0, -grid.w % self.block, 0, -grid.h % self.block))
        q, (k, v) = self.queries(cells), self.windows(self.kv(cells)).chunk(2, dim=-1)
        side = self.block // self.stride
        y = self.attend(q, k, v, self.position.bias(q, Grid(side, side)))  # (B, G, h, n, d)
        y = y.unflatten(3, (side, side)).unflatten(1, (cells.shape[1] // self.block, -1))
        y = y.permute(0, 1, 4, 2, 5, 3, 6).flatten(5).flatten(3, 4).flatten(1, 2)  # (B, Y, X, C)
        h, w = (grid.h + self.stride - 1) // self.stride, (grid.w + self.stride - 1) // self.stride
        return y[:, :h, :w].flatten(1, 2)

    def queries(self, cells: FeatureMap) -> Tensor:
        """Return the queries of each block, `(B, G, h, n, d)`."""
        blocks = cells.unflatten(2, (-1, self.block)).unflatten(1, (-1, self.block))  # (B, gy, y, gx, x, C)
        q = self.q(blocks[:, :, :: self.stride, :, :: self.stride]).unflatten(5, (self.num_heads, -1))
        return q.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 2)  # from (B, gy, y, gx, x, h, d)

    def windows(self, kv: FeatureMap) -> Tensor:
        """Return keys and values of each window, `(B, G, h, W W, 2 d)`."""
        window = self.block + 2 * self.halo
        kv = pad(kv, (0, 0, self.halo, self.halo, self.halo, self.halo))
        kv = kv.unfold(1, window, self.block).unfold(2, window, self.block)  # (B, gy, gx, 2 C, W, W)
        return kv.flatten(1, 2).unflatten(2, (self.num_heads, -1)).flatten(4).mT

    def token_index(self, grid: Grid) -> Tensor:
        """Return the query cells of each block, `(G, n)`; -1 is padding."""
        return self._cells(grid, 0, self.stride)

    def keys(self, grid: Grid) -> Tensor:
        """Return the key cells of each window, `(G, W W)`; -1 is padding."""
        return self._cells(grid, self.halo, 1)

    def _cells(self, grid: Grid, halo: int, stride: int) -> Tensor:
        index = torch.arange(grid.tokens).view(grid.h, grid.w)
        extra = (halo, -grid.w % self.block + halo, halo, -grid.h % self.block + halo)
        index = pad(index, extra, value=-1).unfold(0, self.block + 2 * halo, self.block)
        index = index.unfold(1, self.block + 2 * halo, self.block)[..., ::stride, ::stride]  # (gy, gx, y, x)
        return index.flatten(2).flatten(0, 1)


class StandAloneAttention(HaloAttention):
    """Each cell attends to the `k x k` cells around it: blocks of one cell, and scores without a scale.

    y_i = concat_h softmax(q_i^T k_j + q_i^T r_{j - i}) v_j

    "Stand-Alone Self-Attention in Vision Models", section 2.2, equations 2 and 3.

    Args:
        dim: channels C.
        num_heads: heads h.
        kernel: odd side k of a neighborhood.

    Example:
        >>> StandAloneAttention(8, 2, kernel=3)(torch.randn(2, 5 * 6, 8), Grid(5, 6)).shape
        torch.Size([2, 30, 8])
    """

    def __init__(self, dim: int, num_heads: int, kernel: int):
        check_heads(dim, num_heads)
        position = SplitHaloPosition(num_heads, dim // num_heads, kernel)
        super().__init__(dim, num_heads, block=1, halo=kernel // 2, position=position)
        self.scale = (dim // num_heads) ** 0.5  # cancels the scale of `Attend`

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells; the grid must have no prefix."""
        cells = grid.cells(x)
        q, (k, v) = self.queries(cells), self.windows(self.kv(cells)).chunk(2, dim=-1)
        mixed = self.attend(self.scale * q, k, v, self.position.bias(q, Grid(1, 1)))  # (B, N, h, 1, d)
        return mixed.flatten(2)
