"""Fused pooling and MLP branches of a block with norms over the whole image.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation. Tokens have the residual dtype.
"""

import torch
from torch import Tensor

from vitrail.grid import Grid
from vitrail.native.allocator import empty
from vitrail.native.dtypes import PRODUCTS
from vitrail.native.ffi import at, call
from vitrail.native.gemm import PackedLinear


def pool(x: Tensor, grid: Grid, size: int, factor: Tensor, eps: float) -> Tensor:
    """Return `x + factor * (average pooling of x - x) / sqrt(var + eps)`; var is over the whole image.

    Args:
        x: `(B, N, C)`, cells only.
        grid: the grid of the cells.
        size: pooling size, odd; cells outside the map are not counted in the mean.
        factor: scale of each channel, fp32, from `norms.lanes`.
        eps: epsilon of the norm.
    """
    x = x.contiguous()
    y = empty(*x.shape, dtype=x.dtype)
    call(
        *("pooling", "pool", PRODUCTS[x.dtype]),
        x=at(x),
        batch=x.shape[0],
        height=grid.h,
        width=grid.w,
        channels=x.shape[2],
        reach=size // 2,
        factor=at(factor),
        eps=eps,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def image_mlp(x: Tensor, first: PackedLinear, second: PackedLinear, eps: float) -> Tensor:
    """Return `x + gelu(z W1^T + b1) W2^T + b2`; z is x normalised over each whole image.

    Args:
        x: `(B, N, C)`.
        first: weights C to hidden.
        second: weights hidden to C.
        eps: epsilon of the norm.
    """
    x = x.contiguous()
    y = empty(*x.shape, dtype=x.dtype)
    products = PRODUCTS[x.dtype]
    assert products == first.dtype == second.dtype and x.shape[2] == first.inputs == second.outputs
    call(
        *("pooling", "image_mlp", products),
        x=at(x),
        batch=x.shape[0],
        tokens=x.shape[1],
        eps=eps,
        first=first.args,
        second=second.args,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y
