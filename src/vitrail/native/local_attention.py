"""Native stand-alone self-attention: each cell attends to the `k x k` cells around it, zeros off the map.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation. Maps have the residual dtype; in bf16 the arithmetic stays
in fp32, and exponentials are those of bf16.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.grid import Grid
from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.dtypes import PRODUCTS
from vitrail.native.ffi import at, call
from vitrail.shapes import Tokens

KERNELS = (3, 5, 7)
"""Sides of a neighborhood that are compiled."""
ABREAST = 8
"""Most images side by side in a plane."""
ROOM = 1 << 20
"""Bytes of the planes of keys and values of a task: half of a usual L2."""


@dataclass(frozen=True)
class Offsets:
    """Vectors of row and column offsets: queries meet the first with their first channels.

    Args:
        rows: `(h, k, r)` in fp32.
        columns: `(h, k, d - r)` in fp32.
    """

    rows: Tensor
    columns: Tensor

    @property
    def kernel(self) -> int:
        """Side k of a neighborhood."""
        return self.rows.shape[1]


def local_attention(qkv: Tokens, grid: Grid, offsets: Offsets) -> Tensor:
    """Return `y_i = concat_h softmax_j(q_i^T k_j + q_i^T concat(row, column of j - i)) v_j`: `(B, N, h d)`.

    Args:
        qkv: `(B, N, 3 h d)`, queries, keys and values, in the residual dtype.
        grid: the map, without a prefix.
        offsets: vectors of the offsets.
    """
    heads, kernel, first = offsets.rows.shape
    head_dim = first + offsets.columns.shape[2]
    batch, tokens, width = qkv.shape
    assert tokens == grid.tokens and grid.prefix == 0 and width == 3 * heads * head_dim, (qkv.shape, grid)
    assert kernel in KERNELS and offsets.columns.shape[:2] == (heads, kernel), offsets.columns.shape
    qkv, y = qkv.contiguous(), empty(batch, tokens, heads * head_dim, dtype=qkv.dtype)
    images = abreast(batch, grid.w, kernel, library("gemm").vitrail_lanes())
    call(
        *("local_attention", "local_attention", PRODUCTS[qkv.dtype]),
        qkv=at(qkv),
        batch=batch,
        height=grid.h,
        width=grid.w,
        heads=heads,
        head_dim=head_dim,
        kernel=kernel,
        rows=at(offsets.rows),
        columns=at(offsets.columns),
        first=first,
        abreast=images,
        band=max(8, ROOM // (8 * head_dim * images * (grid.w + kernel))),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def abreast(batch: int, width: int, kernel: int, lanes: int) -> int:
    """Return the number of images side by side that leaves the fewest lanes without a query.

    Example:
        >>> [abreast(8, width, kernel=7, lanes=16) for width in (56, 14, 7)]
        [3, 1, 5]
    """

    def lanes_of_a_query(images: int) -> float:
        return -(-(images * (width + kernel // 2) - kernel // 2) // lanes) * lanes / (images * width)

    return min(range(1, max(1, min(batch, ABREAST)) + 1), key=lanes_of_a_query)
