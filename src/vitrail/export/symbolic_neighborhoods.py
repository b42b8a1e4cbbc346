"""Neighborhood attention for a height and width that are not known: neighbours by arithmetic on each axis.

In eager mode an axis is cut into tiles by its length. Here each cell gathers its own keys and values, as the paper
writes it: more memory, and no number of the program depends on a size. The tables of a map are shared by the blocks of
a stage with the same kernel and dilation.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from vitrail.export.shared_tables import SharedTables, length
from vitrail.grid import Grid
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.shapes import Tokens


class NeighborTables(NamedTuple):
    """Tables of the neighborhoods of one map of N cells.

    Args:
        source: cell of each neighbour of each cell, `(N k k,)`; any one if the neighbour is padding.
        real: 1, or 0 for padding, `(N k k, 1)`.
        offset: row of the bias table, `(N, k k)`.
    """

    source: Tensor
    real: Tensor
    offset: Tensor


class SymbolicNeighborhoodAttention(nn.Module):
    """The same output as a `NeighborhoodAttention`, from operations that keep sizes symbolic.

    Args:
        mixer: the attention, whose parameters are used.
        shared: tables that the blocks of a stage share.

    Example:
        >>> mixer = NeighborhoodAttention(8, num_heads=2, kernel_size=3, dilation=2).eval()
        >>> x, grid = torch.randn(1, 9 * 4, 8), Grid(9, 4)
        >>> bool((SymbolicNeighborhoodAttention(mixer)(x, grid) - mixer(x, grid)).abs().max() < 1e-5)
        True
    """

    def __init__(self, mixer: NeighborhoodAttention, shared: SharedTables | None = None):
        super().__init__()
        self.mixer, self.shared = mixer, shared or SharedTables()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells; the grid must have no prefix."""
        mixer, batch, cells, dim = self.mixer, x.shape[0], grid.h * grid.w, x.shape[2]
        kernel, dilation = mixer.attend.kernel_size, mixer.attend.dilation
        heads, near = (mixer.num_heads, dim // mixer.num_heads), kernel * kernel
        tables = self.shared.of(grid, (kernel, dilation), lambda: neighbor_tables(grid, kernel, dilation, x))
        q, kv = mixer.qkv(x).split([dim, 2 * dim], dim=2)
        padding = mixer.qkv(x.new_zeros(1, dim))[:, dim:]  # cells of padding are zeros before the projection
        kv = kv.index_select(1, tables.source) * tables.real + padding * (1 - tables.real)
        k, v = kv.reshape(batch, cells, near, 2, *heads).permute(3, 0, 1, 4, 2, 5)  # each (B, N, h, k k, d)
        q = q.reshape(batch, cells, heads[0], 1, heads[1]) * heads[1] ** -0.5
        bias = embedding(tables.offset, mixer.position.table).mT[:, :, None]  # (N, k k, h) -> (N, h, 1, k k)
        mixed = (q @ k.mT + bias).softmax(-1) @ v  # (B, N, h, 1, d)
        return mixer.proj(mixed.reshape(batch, cells, dim))


def neighbor_tables(grid: Grid, kernel_size: int, dilation: int, like: Tensor) -> NeighborTables:
    """Compute the tables of the neighborhoods on a map whose sides may be symbolic.

    Args:
        grid: the map.
        kernel_size: odd side k of a neighborhood.
        dilation: step between two neighbours.
        like: a tensor of the device and type of the tokens.
    """
    rows, columns = (_side(n, kernel_size, dilation, like.device) for n in (grid.h, grid.w))

    def pairs(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lay values of rows and columns out so that their broadcast is `(H, W, k, k)`."""
        return y.reshape(grid.h, 1, kernel_size, 1), x.reshape(1, grid.w, 1, kernel_size)

    top, left = pairs(rows[0] * length(torch.arange(grid.w, device=like.device)), columns[0])
    below, right = pairs(rows[1], columns[1])
    up, across = pairs(rows[2] * (2 * kernel_size - 1), columns[2])
    real = (below * right).to(like.dtype).reshape(-1, 1)
    offset = (up + across).reshape(grid.h * grid.w, kernel_size * kernel_size)
    return NeighborTables((top + left).flatten(), real, offset)


def _side(n: Any, kernel_size: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return source, reality and bias offset of the neighbours along an axis of n cells, `(n, k)` each.

    An axis shorter than a neighborhood is padded at its end, and padding takes part as keys.
    """
    cell, step = torch.arange(n, device=device), torch.arange(kernel_size, device=device)
    count = length(cell)
    padded = count.clamp(min=kernel_size * dilation)
    group = cell % dilation
    place = torch.div(cell - group, dilation, rounding_mode="floor")
    in_group = torch.div(padded - group + dilation - 1, dilation, rounding_mode="floor")
    start = torch.minimum((place - kernel_size // 2).clamp(min=0), in_group - kernel_size)
    near = start[:, None] + step
    keys = near * dilation + group[:, None]
    return torch.minimum(keys, count - 1), (keys < count).long(), place[:, None] - near + kernel_size - 1
