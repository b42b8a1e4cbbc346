"""Neighborhood attention in Triton: supported inputs, launch, gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.neighborhood.window import check_length
from vitrail.kernels.triton_support import refusal, share, tile_of
from vitrail.shapes import HeadMap

SIDE, CELLS = 8, 64  # of a tile; the kernels have the same
MOST_KERNEL, MOST_BYTES = 15, 64 * 64 * 2


def unsupported_reason(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int) -> str | None:
    """Return why Triton cannot take these tensors."""
    return refusal(q) or unfit(q, k, v, kernel_size)


def unfit(q: Tensor, k: Tensor, v: Tensor, kernel_size: int) -> str | None:
    """Return why the kernels, or a tile, cannot hold them."""
    if {k.dtype, v.dtype} != {q.dtype}:
        return f"needs one precision, got {q.dtype}, {k.dtype} and {v.dtype}"
    if kernel_size > MOST_KERNEL:
        return f"a table for neighborhoods of {kernel_size} cells is too large, at most {MOST_KERNEL}"
    if CELLS * tile_of(q.shape[4]) * q.element_size() > MOST_BYTES:
        return f"a tile of heads of width {q.shape[4]} in {q.dtype} is too large"
    return None


def attend(q: HeadMap, k: HeadMap, v: HeadMap, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Compute neighborhood attention; the arguments are those of the reference."""
    check_length(q.shape[1], kernel_size, dilation)
    check_length(q.shape[2], kernel_size, dilation)
    return _Attend.apply(*_alike(q, k, v), bias, kernel_size, dilation)  # pyright: ignore[reportReturnType]


class _Attend(Function):
    """Neighborhood attention with its gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
        batch, height, width, heads, _ = q.shape
        table = bias.T.float().contiguous()  # (h, offsets)
        out = q.new_empty(q.shape)
        sums = q.new_empty(batch, heads, height * width, dtype=torch.float32)
        rows, columns, tiles = _tiles(height, width, dilation)
        _kernels().forward[(heads * tiles, batch)](
            q, k, v, table, out, sums, height, width, q.stride(2), rows, columns, q.shape[4] ** -0.5,
            **_shape(q, kernel_size, dilation),
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, bias, out, sums)
        ctx.sizes = kernel_size, dilation
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, bias, out, sums = ctx.saved_tensors
        kernel_size, dilation = ctx.sizes
        batch, height, width, heads, d = q.shape
        grad, table = grad.contiguous(), bias.T.float().contiguous()
        rows, columns, tiles = _tiles(height, width, dilation)
        into_q, into_k, into_v = _like(q)
        deltas = torch.empty_like(sums)
        offsets, chunks = len(bias), _chunks(len(bias))
        most = share(batch, heads * tiles, q.device)
        of_table = ctx.needs_input_grad[3]
        partial = sums.new_empty((-(-batch // most), tiles, heads, chunks * CELLS) if of_table else (1,))
        shape = _shape(q, kernel_size, dilation)
        sizes = height, width, q.stride(2), rows, columns
        _kernels().backward_queries[(heads * tiles, -(-batch // most))](
            q, k, v, table, out, grad, sums, deltas, into_q, partial, *sizes, batch, most, d**-0.5,
            CHUNKS=chunks, TABLE_GRAD=of_table, **shape,
        )  # fmt: skip
        _kernels().backward_keys[(heads * tiles, batch)](
            q, k, v, table, grad, sums, deltas, into_k, into_v, *sizes, d**-0.5, **shape
        )
        into_table = partial.sum((0, 1))[:, :offsets].T.to(bias.dtype) if of_table else None
        return into_q, into_k, into_v, into_table, None, None


def _kernels() -> Any:
    from vitrail.kernels.neighborhood import triton_kernels

    return triton_kernels


def _alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bring three maps into one layout in which cells are evenly spaced; views of one product are in it."""
    stride = q.stride(2)
    even = (q.shape[1] * q.shape[2] * stride, q.shape[2] * stride, stride, q.shape[4], 1)
    if all(x.stride() == even for x in (q, k, v)):
        return q, k, v
    return q.contiguous(), k.contiguous(), v.contiguous()


def _like(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return three maps to write to, spaced as `q` is."""
    batch, height, width, heads, d = q.shape
    stride = q.stride(2)
    if stride == 3 * heads * d:
        return q.new_empty(batch, height, width, 3, heads, d).unbind(3)  # pyright: ignore[reportReturnType]
    base = [q.new_empty(batch, height, width, stride) for _ in range(3)]
    return tuple(x[..., : heads * d].unflatten(3, (heads, d)) for x in base)  # pyright: ignore[reportReturnType]


def _tiles(height: int, width: int, dilation: int) -> tuple[int, int, int]:
    """Return rows and columns of tiles in the longest group, and tiles in all groups."""
    rows, columns = (-(-length // (dilation * SIDE)) for length in (height, width))
    return rows, columns, rows * columns * dilation * dilation


def _chunks(offsets: int) -> int:
    """Return how many times 64 offsets, a power of two, hold all of a table."""
    return 1 << (-(-offsets // CELLS) - 1).bit_length()


def _shape(q: Tensor, kernel_size: int, dilation: int) -> dict[str, Any]:
    """Return the constants of the kernels."""
    return dict(
        HEADS=q.shape[3],
        WIDTH=q.shape[4],
        LANES=tile_of(q.shape[4]),
        KERNEL=kernel_size,
        DILATION=dilation,
        PRECISION="tf32x3" if q.dtype == torch.float32 else "ieee",
        num_warps=4,
        num_stages=2,
    )
