"""The branch of an attention in one operation.

For the gradient it keeps the input, the moments of its norm, queries, keys and values, and what was mixed of them: no
attention map and no normed input.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.branch import Linear, Meeting, Norm, as_fp32, computing, in_dtypes, refuses_branch
from vitrail.kernels.window.compiled import gather
from vitrail.native.rows import norm, norm_again, norm_back, rejoin, rejoin_back
from vitrail.native.window_gradient import Groups, mix_groups, mix_groups_back
from vitrail.shapes import Tokens


def refuses(x: Tokens, norm: Norm, qkv: Linear, proj: Linear, meeting: Meeting, keep: Tensor | None) -> str | None:
    """Say why compiled code cannot compute this branch."""
    if computing(x) == torch.bfloat16 and x.shape[2] // meeting.heads % 2:
        return "heads of an odd width cannot be read in pairs"
    return refuses_branch(x, norm.weight, norm.bias, *qkv, *proj)


def attend(x: Tokens, norm: Norm, qkv: Linear, proj: Linear, meeting: Meeting, keep: Tensor | None) -> Tensor:
    """Compute the branch; the arguments are those of the reference."""
    who = (meeting.heads, meeting.kinds, meeting.slots)
    weights = (norm.weight, norm.bias, *qkv, *proj)
    return _Attend.apply(x, norm.eps, keep, who, meeting.bias, *weights)  # pyright: ignore[reportReturnType]


class _Attend(Function):
    """x + keep * (attend(norm(x) Wqkv' + bqkv) Wp' + bp)"""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, keep: Tensor | None, who: Any, bias: Tensor | None, *weights: Tensor
    ) -> Tensor:
        dtype, (heads, kinds, slots) = computing(x), who
        scale, shift, offset = as_fp32(*weights[:2], weights[5])
        first, padding, second = (weight.detach().to(dtype) for weight in (*weights[2:4], weights[4]))
        keep = None if keep is None else keep.detach().float()
        rows = x.detach().contiguous().flatten(0, -2)
        normed, moments = norm(rows, scale, shift, eps, dtype)
        qkv = torch.addmm(padding, normed, first.t()).view(*x.shape[:2], -1)
        del normed
        groups = gather(qkv, padding, bias, kinds, slots, heads)
        mixed, peaks = mix_groups(groups)
        y = rejoin(mixed.flatten(0, -2) @ second.t(), offset, keep, rows)
        ctx.heads, ctx.dtypes = heads, [weight.dtype for weight in weights]
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        ctx.padded = slots.numel() > x.shape[1]
        ctx.save_for_backward(rows, moments, keep, mixed, peaks, scale, shift, first, second, *groups[:1], *groups[2:])
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, moments, keep, mixed, peaks, scale, shift, first, second, qkv, *rest = ctx.saved_tensors
        groups = Groups(qkv, ctx.heads, *rest)
        past = into_y.contiguous().flatten(0, -2)
        into_branch, into_offset = rejoin_back(past, keep, qkv.dtype)
        into_mixed = (into_branch @ second).view(mixed.shape)
        into_second = into_branch.t() @ mixed.flatten(0, -2) if ctx.needs_input_grad[9] else None
        del into_branch
        into_qkv, into_bias, into_padding = mix_groups_back(
            groups, peaks, into_mixed, ctx.needs_input_grad[4], ctx.padded
        )
        del into_mixed
        into_parts = into_qkv.flatten(0, -2)
        into_first = None
        if ctx.needs_input_grad[7]:
            into_first = into_parts.t() @ norm_again(rows, scale, shift, moments, qkv.dtype)
        _, into_first_bias = rejoin_back(into_parts, None, qkv.dtype)
        if into_padding is not None:
            into_first_bias += into_padding
        into_x, into_scale, into_shift = norm_back(rows, scale, moments, into_parts @ first, past)
        if into_bias is not None:
            shape, dtype = ctx.bias
            into_bias = into_bias.sum_to_size(shape).to(dtype)
        found = (into_scale, into_shift, into_first, into_first_bias, into_second, into_offset)
        return into_x.view(into_y.shape), None, None, None, into_bias, *in_dtypes(found, ctx.dtypes)
