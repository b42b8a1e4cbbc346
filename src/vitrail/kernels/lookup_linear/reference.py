"""Linear layer with weights of four bits: unpacked, looked up, scaled, multiplied."""

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

BLOCK = 32
"""Columns of a block of codes: byte i has column i of the block in its low half, column 16 + i in its high half."""
ROWS = 64
"""Rows of the matrix that share a table."""


def pack_codes(codes: Tensor) -> Tensor:
    """Pack codes 0 to 15, `(out, in)`, into bytes `(out, 16 * blocks)`; columns that fill the last block are 0.

    Example:
        >>> unpack_codes(pack_codes(torch.tensor([[3, 15, 0]]))).tolist()[0][:4]
        [3, 15, 0, 0]
    """
    whole = pad(codes.to(torch.uint8), (0, -codes.shape[1] % BLOCK)).unflatten(1, (-1, 2, BLOCK // 2))
    return (whole[:, :, 0] | whole[:, :, 1] << 4).flatten(1)


def unpack_codes(packed: Tensor) -> Tensor:
    """Return the codes `(out, 32 * blocks)` of packed bytes."""
    halves = packed.unflatten(1, (-1, BLOCK // 2))
    return torch.stack([halves & 15, halves >> 4], dim=2).flatten(1)


def lookup_dense(codes: Tensor, tables: Tensor, scales: Tensor, columns: int) -> Tensor:
    """Return the fp32 matrix `(out, 32 * blocks)`.

    W[r, c] = scales[r, c // columns] tables[r // 64, codes[r, c]]

    Args:
        codes: packed bytes, `(out, 16 * blocks)`.
        tables: `(ceil(out / 64), 16)`, or `(1, 16)` for all rows.
        scales: `(out, groups)`.
        columns: columns of a group, a multiple of 32.
    """
    index = unpack_codes(codes).long()
    table = tables.float().expand(len(codes), -1) if len(tables) == 1 else tables.float().repeat_interleave(ROWS, 0)
    values = table[: len(codes)].gather(1, index)
    return values * scales.float().repeat_interleave(columns, 1)[:, : values.shape[1]]


def lookup_linear(x: Tensor, codes: Tensor, tables: Tensor, scales: Tensor, columns: int) -> Tensor:
    """Return `x W^T`, `(*B, in)` to `(*B, out)`; see `lookup_dense`.

    Example:
        >>> codes = pack_codes(torch.tensor([[15, 0], [1, 15]]))
        >>> table = torch.arange(16.0)[None]
        >>> lookup_linear(torch.tensor([[1.0, 2.0]]), codes, table, torch.tensor([[1.0], [0.1]]), 64)
        tensor([[15.0000,  3.1000]])
    """
    weight = lookup_dense(codes, tables, scales, columns)
    return linear(x, weight[:, : x.shape[-1]].to(x.dtype))
