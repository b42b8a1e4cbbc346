"""Residual branch of an attention as one autograd function.

It saves the normalised input, queries, keys and values, and the attention output: no attention map.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.fused_types import (
    AttentionGroups,
    LinearWeights,
    NormWeights,
    as_fp32,
    branch_unsupported_reason,
    compute_dtype,
    in_dtypes,
)
from vitrail.kernels.window.cpp import gather
from vitrail.native.fused_train import (
    Normed,
    linear_residual,
    linear_residual_backward,
    norm_linear,
    norm_linear_backward,
)
from vitrail.native.window_gradient import Groups, window_attention_backward, window_attention_forward
from vitrail.shapes import Tokens


def unsupported_reason(
    x: Tokens,
    norm: NormWeights,
    qkv: LinearWeights,
    proj: LinearWeights,
    groups: AttentionGroups,
    drop_scale: Tensor | None,
) -> str | None:
    """Return why native code cannot compute this branch, or None."""
    if compute_dtype(x) == torch.bfloat16 and len(qkv.weight) // 3 // groups.heads % 2:
        return "bf16 needs an even head width"
    return branch_unsupported_reason(x, norm.weight, norm.bias, *qkv, *proj)


def attend(
    x: Tokens,
    norm: NormWeights,
    qkv: LinearWeights,
    proj: LinearWeights,
    groups: AttentionGroups,
    drop_scale: Tensor | None,
) -> Tensor:
    """Compute the branch; the arguments are those of the reference."""
    who = (groups.heads, groups.mask_index, groups.token_index, torch.is_grad_enabled())
    weights = (norm.weight, norm.bias, *qkv, *proj)
    return _Attend.apply(x, norm.eps, drop_scale, who, groups.bias, *weights)  # pyright: ignore[reportReturnType]


class _Attend(Function):
    """x + drop_scale * (attend(norm(x) Wqkv' + bqkv) Wp' + bp)"""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, drop_scale: Tensor | None, who: Any, bias: Tensor | None, *weights: Tensor
    ) -> Tensor:
        heads, mask_index, token_index, learn = who
        scale, shift, padding, offset = as_fp32(*weights[:2], weights[3], weights[5])
        drop_scale = None if drop_scale is None else drop_scale.detach().float()
        rows = x.detach().contiguous().flatten(0, -2)
        qkv, normed = norm_linear(rows, scale, shift, eps, weights[2], padding, compute_dtype(x), learn)
        groups = gather(qkv.view(*x.shape[:2], -1), padding, bias, mask_index, token_index, heads)
        mixed, peaks = window_attention_forward(groups)
        y = linear_residual(mixed.flatten(0, -2), weights[4], offset, drop_scale, rows)
        ctx.heads, ctx.dtypes = heads, [weight.dtype for weight in weights]
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        ctx.padded = token_index.numel() > x.shape[1]
        ctx.save_for_backward(drop_scale, mixed, peaks, weights[2], weights[4], *normed, *groups[:1], *groups[2:])
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        drop_scale, mixed, peaks, first, second, *rest = ctx.saved_tensors
        normed, groups = Normed(*rest[:4]), Groups(rest[4], ctx.heads, *rest[5:])
        past = into_y.contiguous().flatten(0, -2)
        into_mixed, into_second, into_offset = linear_residual_backward(
            past, second, drop_scale, mixed.flatten(0, -2), ctx.needs_input_grad[9]
        )
        into_qkv, into_bias, into_padding = window_attention_backward(
            groups, peaks, into_mixed.view(mixed.shape), ctx.needs_input_grad[4], ctx.padded
        )
        del into_mixed
        into_x, into_first, into_first_bias, into_scale, into_shift = norm_linear_backward(
            into_qkv.flatten(0, -2), first, normed, past, ctx.needs_input_grad[7]
        )
        if into_padding is not None:
            into_first_bias += into_padding
        if into_bias is not None:
            shape, dtype = ctx.bias
            into_bias = into_bias.sum_to_size(shape).to(dtype)
        found = (into_scale, into_shift, into_first, into_first_bias, into_second, into_offset)
        return into_x.view(into_y.shape), None, None, None, into_bias, *in_dtypes(found, ctx.dtypes)
