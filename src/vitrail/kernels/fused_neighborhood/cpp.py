"""Residual branch of a neighborhood attention as one autograd function.

It saves the normalised input, queries, keys and values, and the attention output: no attention map.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.fused_types import (
    LinearWeights,
    NeighborhoodSpec,
    NormWeights,
    as_fp32,
    branch_unsupported_reason,
    compute_dtype,
    in_dtypes,
)
from vitrail.native.build import refusal
from vitrail.native.fused_train import (
    Normed,
    linear_residual,
    linear_residual_backward,
    norm_linear,
    norm_linear_backward,
)
from vitrail.native.neighborhood import attend_neighbors, meeting, run_bias
from vitrail.native.neighborhood_gradient import attend_neighbors_backward
from vitrail.shapes import Tokens

LIBRARIES = ("fused_train", "neighborhood", "neighborhood_gradient")


def unsupported_reason(
    x: Tokens,
    norm: NormWeights,
    qkv: LinearWeights,
    proj: LinearWeights,
    spec: NeighborhoodSpec,
    drop_scale: Tensor | None,
) -> str | None:
    """Return why native code cannot compute this branch, or None."""
    if compute_dtype(x) == torch.bfloat16 and len(qkv.weight) // 3 // spec.heads % 2:
        return "bf16 needs an even head width"
    return branch_unsupported_reason(x, norm.weight, norm.bias, *qkv, *proj) or refusal(compute_dtype(x), *LIBRARIES)


def attend(
    x: Tokens,
    norm: NormWeights,
    qkv: LinearWeights,
    proj: LinearWeights,
    spec: NeighborhoodSpec,
    drop_scale: Tensor | None,
) -> Tensor:
    """Compute the branch; the arguments are those of the reference."""
    who = (spec, torch.is_grad_enabled())
    weights = (norm.weight, norm.bias, *qkv, *proj)
    return _Attend.apply(x, norm.eps, drop_scale, who, spec.table, *weights)  # pyright: ignore[reportReturnType]


class _Attend(Function):
    """x + drop_scale * (attend(norm(x) Wqkv' + bqkv) Wp' + bp)"""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, drop_scale: Tensor | None, who: Any, table: Tensor, *weights: Tensor
    ) -> Tensor:
        spec, learn = who
        dtype, heads = compute_dtype(x), spec.heads
        scale, shift, offset, last_offset = as_fp32(*weights[:2], weights[3], weights[5])
        drop_scale = None if drop_scale is None else drop_scale.detach().float()
        rows = x.detach().contiguous().flatten(0, -2)
        qkv, normed = norm_linear(rows, scale, shift, eps, weights[2], offset, dtype, learn)
        # Padding is zero after the norm, so its key and value are the bias.
        padding = offset[len(offset) // 3 :].to(dtype).view(2, heads, -1) if any(spec.short) else None
        cells = qkv.view(len(x), spec.grid.h, spec.grid.w, 3, heads, -1)
        ctx.cut = meeting(spec.grid, spec.kernel_size, spec.dilation)
        addends = run_bias(table, ctx.cut)
        q, k, v = cells.unbind(3)  # (B, H, W, 3, h, d) -> 3 x (B, H, W, h, d)
        mixed = attend_neighbors(q, k, v, addends, ctx.cut, padding)
        y = linear_residual(mixed.view(len(rows), len(offset) // 3), weights[4], last_offset, drop_scale, rows)
        ctx.table, ctx.dtypes = (len(table), table.dtype), [weight.dtype for weight in weights]
        ctx.save_for_backward(drop_scale, cells, padding, addends, mixed, weights[2], weights[4], *normed)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        drop_scale, cells, padding, addends, mixed, first, second, *normed = ctx.saved_tensors
        past = into_y.contiguous().flatten(0, -2)
        into_mixed, into_second, into_offset = linear_residual_backward(
            past, second, drop_scale, mixed.view(len(past), second.shape[1]), ctx.needs_input_grad[9]
        )
        rows, table_dtype = ctx.table
        rows = rows if ctx.needs_input_grad[4] else 0
        q, k, v = cells.unbind(3)
        into_cells, into_table, into_padding = attend_neighbors_backward(
            q, k, v, addends, ctx.cut, into_mixed.view(mixed.shape), padding, rows
        )
        del into_mixed
        into_x, into_first, into_first_offset, into_scale, into_shift = norm_linear_backward(
            into_cells.view(len(past), -1), first, Normed(*normed), past, ctx.needs_input_grad[7]
        )
        if into_padding is not None:
            into_first_offset[len(into_first_offset) // 3 :] += into_padding.flatten()
        if into_table is not None:
            into_table = into_table.to(table_dtype)
        found = (into_scale, into_shift, into_first, into_first_offset, into_second, into_offset)
        return into_x.view(into_y.shape), None, None, None, into_table, *in_dtypes(found, ctx.dtypes)
