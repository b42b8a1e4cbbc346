"""Neighborhood attention as plain attention of tiles: the fast way that needs no kernel of its own.

A tile of t x t queries finds its keys within a patch of t + k - 1 rows and columns. So the map is cut into tiles and
overlapping patches, and each tile attends to its patch by plain products of matrices; a key that is no neighbour of a
query gets minus infinity for a score. With t = k some four times as many products are computed as count, and still it
is many times as fast as gathering k * k keys for each query, because a patch is copied once for a whole tile.

Every step is a view, a padding, a copy or a product: gradients are summed in a fixed order, and exporters see plain
operators.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from vitrail.kernels.attention import attention
from vitrail.kernels.neighborhood.tiling import Axis
from vitrail.kernels.neighborhood.unfold import cut_patches
from vitrail.shapes import HeadMap


def unsupported_reason(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int) -> str | None:
    """Return why tiles cannot take these tensors."""
    if not q.is_floating_point():
        return f"needs floating point, got {q.dtype}"
    if q.device.type == "meta":
        return "products are counted on the meta device, and tiles compute some that do not count"
    return None


def attend(q: HeadMap, k: HeadMap, v: HeadMap, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Compute neighborhood attention; the arguments are those of the reference."""
    rows, columns = (Axis.of(length, kernel_size, dilation) for length in q.shape[1:3])
    tiles = _tiles(q, rows, columns)  # (B, s, s, h, n, n, tt, d)
    addend = _addend(bias, rows, columns, q.dtype)  # (s or 1, s or 1, h, n, n, tt, pp)
    # Groups that are alike share one addend, as images do, so they join the batch. Else they join the heads.
    alike = addend.shape[0] == addend.shape[1] == 1
    batch = 3 if alike else 1
    if not alike:
        addend = addend.expand(dilation, dilation, *addend.shape[2:])
    operands = (
        x.flatten(batch, 5).flatten(0, batch - 1) for x in (tiles, *(_patches(x, rows, columns) for x in (k, v)))
    )
    mixed = attention(*operands, addend.flatten(0, 4)[None]).reshape(tiles.shape)
    return _join(mixed, rows, columns)


def _tiles(q: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Cut queries into groups s and tiles n on both axes: `(B, s, s, h, n, n, tt, d)`."""
    x = _pad(q, rows.query_padding, columns.query_padding)
    x = x.unflatten(2, (columns.tiles, columns.side, -1)).unflatten(1, (rows.tiles, rows.side, -1))
    return x.permute(0, 3, 6, 7, 1, 4, 2, 5, 8).flatten(6, 7)  # (B, n, t, s, n, t, s, h, d) -> ...


def _join(mixed: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Undo `_tiles`: `(B, H, W, h, d)`."""
    x = mixed.unflatten(6, (rows.side, columns.side))  # (B, s, s, h, n, n, t, t, d)
    x = x.permute(0, 4, 6, 1, 5, 7, 2, 3, 8).flatten(4, 6).flatten(1, 3)  # (B, n, t, s, n, t, s, h, d) -> ...
    return x[:, : rows.length, : columns.length]


def _patches(x: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Cut keys or values into the patches of the tiles: `(B, s, s, h, n, n, pp, d)`."""
    x = _pad(x, rows.key_padding, columns.key_padding)
    x = x.unflatten(2, (-1, columns.dilation)).unflatten(1, (-1, rows.dilation))  # (B, L, s, L, s, h, d)
    return cut_patches(x, (rows.patch, columns.patch), (rows.step, columns.step)).flatten(6, 7)


def _pad(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Pad a `(B, H, W, h, d)` map; a padding of nothing would still copy."""
    return pad(x, (0, 0, 0, 0, *columns, *rows)) if any(rows + columns) else x


def _addend(bias: Tensor, rows: Axis, columns: Axis, dtype: torch.dtype) -> Tensor:
    """Lay the bias out for the pairs of each tile and patch, minus infinity where a key is no neighbour."""
    down, right = rows.offsets(bias.device), columns.offsets(bias.device)  # (2 or 1, t, p)
    index = down[:, None, :, None, :, None] * (2 * columns.kernel_size - 1) + right[None, :, None, :, None, :]
    # `embedding` and not an index: its gradient is summed in a fixed order, in fp32 at least.
    table = bias.to(torch.promote_types(bias.dtype, torch.float32))
    looked_up = embedding(index, table).movedim(-1, 0).to(dtype)  # (h, 2 or 1, 2 or 1, t, t, p, p)
    below, beside = rows.near(bias.device), columns.near(bias.device)  # (s or 1, kinds, t, p)
    near = below[:, None, None, :, None, :, None, :, None] & beside[None, :, None, None, :, None, :, None, :]
    addend = torch.where(near, looked_up, -torch.inf).flatten(7, 8).flatten(5, 6)
    return rows.spread(columns.spread(addend, 4), 3)
