"""Neighborhood attention in C++ on plain pointers, forward and backward: no attention map is kept for the gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.grid import Grid
from vitrail.kernels.neighborhood.window import check_length
from vitrail.kernels.tracing import is_tracing
from vitrail.native.build import refusal
from vitrail.native.neighborhood import attend_neighbors, meeting, run_bias
from vitrail.native.neighborhood_gradient import attend_neighbors_backward
from vitrail.shapes import HeadMap


def unsupported_reason(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int) -> str | None:
    """Return why native code cannot take these tensors, or None."""
    tensors = (q, k, v, bias)
    if any(x.device.type != "cpu" for x in tensors):
        return f"is for CPUs, got {', '.join(sorted({x.device.type for x in tensors}))}"
    if is_tracing(*tensors):
        return "not traceable: torch.compile, export or a functorch transform is active"
    if {k.dtype, v.dtype} != {q.dtype}:
        return f"needs one precision, got {q.dtype}, {k.dtype} and {v.dtype}"
    if q.dtype == torch.bfloat16 and q.shape[-1] % 2:
        return f"bf16 needs an even head width, got {q.shape[-1]}"
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return refusal(q.dtype, "neighborhood", *["neighborhood_gradient"] * learns)


def attend(q: HeadMap, k: HeadMap, v: HeadMap, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Compute neighborhood attention; the arguments are those of the reference."""
    check_length(q.shape[1], kernel_size, dilation)
    check_length(q.shape[2], kernel_size, dilation)
    return _Attend.apply(q, k, v, bias, kernel_size, dilation)  # pyright: ignore[reportReturnType]


class _Attend(Function):
    """Neighborhood attention that computes its shares anew for the gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
        ctx.cut = meeting(Grid(*q.shape[1:3]), kernel_size, dilation)
        ctx.save_for_backward(q, k, v, bias)
        return attend_neighbors(q, k, v, run_bias(bias, ctx.cut), ctx.cut)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, bias = ctx.saved_tensors
        rows = len(bias) if ctx.needs_input_grad[3] else 0
        addends = run_bias(bias, ctx.cut)
        into_qkv, into_bias, _ = attend_neighbors_backward(q, k, v, addends, ctx.cut, into_y, table_rows=rows)
        return *into_qkv.unbind(3), None if into_bias is None else into_bias.to(bias.dtype), None, None
