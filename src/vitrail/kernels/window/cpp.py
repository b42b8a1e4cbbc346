"""Window attention in compiled code, forward and backward: no token is moved and no attention map is kept."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.tracing import is_tracing
from vitrail.native.build import refusal
from vitrail.native.window_gradient import (
    Groups,
    pack_bias_and_mask,
    window_attention_backward,
    window_attention_forward,
)
from vitrail.shapes import Tokens


def unsupported_reason(
    qkv: Tensor, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> str | None:
    """Return why native code cannot take these tensors, or None."""
    if is_tracing(qkv):
        return "not traceable: torch.compile, export or a functorch transform is active"
    if qkv.device.type != "cpu":
        return f"needs a CPU, got {qkv.device.type}"
    if qkv.dtype == torch.bfloat16 and qkv.shape[2] // 3 // heads % 2:
        return "bf16 needs an even head width"
    return refusal(qkv.dtype, "window_gradient")


def attend(
    qkv: Tokens, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> Tensor:
    """Attend within groups of tokens; the arguments are those of the reference."""
    return _Attend.apply(qkv, padding, bias, mask_index, token_index, heads)  # pyright: ignore[reportReturnType]


class _Attend(Function):
    """Window attention that computes its shares anew for the gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, padding: Tensor | None, bias: Tensor | None, *who: Any) -> Tensor:
        mask_index, token_index, heads = who
        groups = gather(qkv, padding, bias, mask_index, token_index, heads)
        y, peaks = window_attention_forward(groups)
        ctx.heads = heads
        ctx.likes = [None if x is None else (x.shape, x.dtype) for x in (padding, bias)]
        ctx.save_for_backward(groups.qkv, groups.slots, groups.padding, groups.kinds, groups.addends, peaks)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        qkv, token_index, padding, mask_index, addends, peaks = ctx.saved_tensors
        groups = Groups(qkv, ctx.heads, token_index, padding, mask_index, addends)
        wanted = ctx.needs_input_grad[2], ctx.needs_input_grad[1]
        into_qkv, into_bias, into_padding = window_attention_backward(
            groups, peaks, into_y.to(qkv.dtype).contiguous(), *wanted
        )
        like_padding, like_bias = ctx.likes
        if into_bias is not None:
            into_bias = into_bias.sum_to_size(like_bias[0]).to(like_bias[1])
        if into_padding is not None:
            into_padding = into_padding.to(like_padding[1])
        return into_qkv, into_padding, into_bias, None, None, None


def gather(
    qkv: Tensor, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> Groups:
    """Put operands as compiled code reads them."""
    rows = qkv.detach().contiguous()
    empty = rows.new_zeros(rows.shape[2]) if padding is None else padding.detach().to(rows.dtype).contiguous()
    addends = None if bias is None else pack_bias_and_mask(bias.detach(), heads)
    which = None if bias is None else mask_index.int().contiguous()
    return Groups(rows, heads, token_index.int().contiguous(), empty, which, addends)
