"""Fused attention whose scores have relative positions that queries read (BoTNet, HaloNet), for CPU inference.

bias[i, j] = a_i[y_j] + b_i[x_j], with a_i = R_i q_i for the rows of the keys and b_i = C_i q_i for their columns. So
each head has channels more: queries `[q_i, a_i, b_i]`, keys `[k_j, onehot(y_j), onehot(x_j)]` and values `[v_j, 0, 0]`,
whose product is `q_i k_j + bias[i, j]`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from vitrail.fused.grid_cache import GridCache
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.attention import attend_keys
from vitrail.native.bottleneck import Size
from vitrail.native.casts import as_residual
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import linear, pack_linear
from vitrail.parts.attend import Attend
from vitrail.parts.token_mixers.bottleneck_attention import BottleneckAttention, RelativeLogits, offsets
from vitrail.parts.token_mixers.halo_attention import HaloAttention, HaloPosition
from vitrail.shapes import Tokens

BOTTLENECK_SEATS: Seats = {"qkv": (nn.Linear,), "position": (RelativeLogits,), "attend": (Attend,)}
HALO_SEATS: Seats = {"q": (nn.Linear,), "kv": (nn.Linear,), "position": (HaloPosition,), "attend": (Attend,)}


class Positions(NamedTuple):
    """Tables of one grid.

    Args:
        rows: R of the queries in each row, `(n_y, W_y, d)`.
        columns: C of the queries in each column, `(n_x, W_x, d)`.
        keys: `[onehot(y_j), onehot(x_j)]` of each key, `(M, extra)`.
    """

    rows: Tensor
    columns: Tensor
    keys: Tensor

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, extra: int) -> "Positions":
        """Build the tables; keys are row by row, as many as R has rows and C has columns."""
        tall, wide = rows.shape[1], columns.shape[1]
        y, x = torch.arange(tall).repeat_interleave(wide), torch.arange(wide).repeat(tall)
        keys = torch.cat([one_hot(y, tall), one_hot(x, wide)], 1).to(rows.dtype)
        return cls(rows, columns, pad(keys, (0, extra - tall - wide)))


class WidenedAttention:
    """Projections and attention with channels for positions.

    Args:
        q: weights of the queries `(C, in)`.
        kv: weights of keys and values `(2 C, in)`.
        heads: heads h.
        extra: channels added to each head, an even number.
        dtype: compute dtype.
    """

    def __init__(self, q: Tensor, kv: Tensor, heads: int, extra: int, dtype: torch.dtype):
        self.heads, self.extra, self.width = heads, extra, len(q) // heads
        if dtype == torch.bfloat16 and (self.width % 2 or q.shape[1] % 2):
            raise NotConverted(f"bf16 needs even widths, got {q.shape[1]} and {self.width}")
        self.q = pack_linear(q.detach().float() * self.width**-0.5, None, dtype)
        self.kv = pack_linear(kv.detach().float(), None, dtype)

    def queries(self, x: Tokens) -> Tensor:
        """Return `(B, N, h (d + extra))`; the added channels are zero."""
        return self._widened(linear(x, self.q))

    def keys_values(self, x: Tokens) -> Tensor:
        """Return `(B, N, 2 h (d + extra))`; the added channels are zero."""
        return self._widened(linear(x, self.kv))

    def _widened(self, x: Tensor) -> Tensor:
        return pad(x.unflatten(2, (-1, self.width)), (0, self.extra)).flatten(2)

    def table(self, weight: Tensor) -> Tensor:
        """Return a table of positions for queries that are already scaled, in the compute dtype."""
        return (weight.detach().float() * self.width**0.5).to(self.q.dtype)

    def attend(self, q: Tensor, kv: Tensor, positions: Positions) -> Tensor:
        """Write the positions, and attend: `(B, N, h (d + extra))` queries to `(B, N, h d)`."""
        tall, wide = len(positions.rows), len(positions.columns)
        heads = q.view(-1, tall, wide, self.heads, self.width + self.extra)
        seen, to = heads[..., : self.width], heads[..., self.width :]
        rows, columns = positions.rows.shape[1], positions.columns.shape[1]
        to[..., :rows] = torch.einsum("byxhd,ykd->byxhk", seen, positions.rows)
        to[..., rows : rows + columns] = torch.einsum("byxhd,xkd->byxhk", seen, positions.columns)
        kv.unflatten(2, (2, self.heads, -1))[:, :, 0, :, self.width :] = positions.keys[:, None]
        return attend_keys(q, kv, self.heads).unflatten(2, (self.heads, -1))[..., : self.width].flatten(2)


class FusedBottleneckAttention(nn.Module):
    """Attention over all cells: `(x, size) -> x`, from the compute dtype to the residual dtype."""

    def __init__(self, mixer: BottleneckAttention, dtype: torch.dtype):
        super().__init__()
        position = mixer.position
        assert isinstance(position, RelativeLogits)
        q, kv = mixer.qkv.weight.split([len(mixer.qkv.weight) // 3, len(mixer.qkv.weight) // 3 * 2])
        extra = sum(position.size) + sum(position.size) % 2
        self.attention = WidenedAttention(q, kv, mixer.num_heads, extra, dtype)
        self.tables = [self.attention.table(x) * position.scale for x in (position.rows, position.columns)]
        self.limit, self.dtype = position.size, dtype
        self.cache: GridCache[Size, Positions] = GridCache()

    def forward(self, x: Tokens, size: Size) -> Tensor:
        """Project and attend."""
        positions = self.cache.of(size, lambda: self._positions(size))
        y = self.attention.attend(self.attention.queries(x), self.attention.keys_values(x), positions)
        return as_residual(y, RESIDUAL[self.dtype])

    def _positions(self, size: Size) -> Positions:
        """Build the tables of a grid.

        Raises:
            VitrailError: it is larger than the model's.
        """
        self.limit.check(Grid(*size))
        rows, columns = (
            offsets(table, most, side) for table, most, side in zip(self.tables, self.limit, size, strict=True)
        )
        return Positions.of(rows, columns, self.attention.extra)


class HaloIndex(NamedTuple):
    """Rows of tokens of a grid, whose last row is zero: the queries and the keys of each block, and where results are.

    Args:
        queries: `(G n,)`.
        keys: `(G M,)`.
        results: index into the queries for each cell of the result.
        blocks: blocks G.
    """

    queries: Tensor
    keys: Tensor
    results: Tensor
    blocks: int


class FusedHaloAttention(nn.Module):
    """Attention of blocks to their windows: `(x, size) -> x`, from the compute dtype to the residual dtype."""

    def __init__(self, mixer: HaloAttention, dtype: torch.dtype):
        super().__init__()
        position = mixer.position
        assert isinstance(position, HaloPosition)
        extra = 2 * position.index.shape[1]
        kv = mixer.kv.weight.unflatten(0, (mixer.num_heads, 2, -1)).transpose(0, 1).flatten(0, 2)  # (h, 2, d) first
        self.attention = WidenedAttention(mixer.q.weight, kv, mixer.num_heads, extra, dtype)
        rows, columns = (self.attention.table(x)[position.index] for x in (position.rows, position.columns))
        self.positions = [Positions.of(rows, columns, extra)]  # in a list: no module casts it
        self.mixers, self.dtype = [mixer], dtype
        self.cache: GridCache[Size, HaloIndex] = GridCache()

    def forward(self, x: Tokens, size: Size) -> Tensor:
        """Project, gather blocks and windows, and attend."""
        index = self.cache.of(size, lambda: self._index(Grid(*size)))
        x = pad(x, (0, 0, 0, 1))
        q = self.attention.queries(x.index_select(1, index.queries))
        kv = self.attention.keys_values(x).index_select(1, index.keys)
        q, kv = (rows.unflatten(1, (index.blocks, -1)).flatten(0, 1) for rows in (q, kv))
        y = self.attention.attend(q, kv, self.positions[0]).unflatten(0, (len(x), -1)).flatten(1, 2)
        return as_residual(y.index_select(1, index.results), RESIDUAL[self.dtype])

    def _index(self, grid: Grid) -> HaloIndex:
        mixer = self.mixers[0]
        queries, keys = mixer.token_index(grid), mixer.keys(grid)
        cells = torch.arange(grid.tokens).view(grid.h, grid.w)[:: mixer.stride, :: mixer.stride].flatten()
        order = torch.full((grid.tokens + 1,), -1)
        order[queries.flatten()] = torch.arange(queries.numel())  # those of padding go to the last row
        rows = grid.tokens + 1
        return HaloIndex((queries % rows).flatten(), (keys % rows).flatten(), order[cells], len(queries))
