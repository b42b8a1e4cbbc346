"""gelu(x + bias) in Triton: supported inputs, launch, gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.triton_support import refusal, share

LANES, ROWS = 128, 16


def unsupported_reason(x: Tensor, bias: Tensor) -> str | None:
    """Return why Triton cannot take these tensors."""
    return refusal(x)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return gelu(x + bias); the arguments are those of the reference."""
    return _BiasGELU.apply(x, bias)  # pyright: ignore[reportReturnType]


class _BiasGELU(Function):
    """gelu(x + bias) with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        x, width = x.contiguous(), x.shape[-1]
        rows, y = x.numel() // width, torch.empty_like(x)
        _kernels().forward[(-(-rows // ROWS), -(-width // LANES))](
            x, bias, y, rows, WIDTH=width, LANES=LANES, ROWS=ROWS
        )
        ctx.save_for_backward(x, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, bias = ctx.saved_tensors
        width = x.shape[-1]
        rows, columns, into_x = x.numel() // width, -(-width // LANES), torch.empty_like(x)
        most = share(-(-rows // ROWS), columns, x.device) * ROWS
        programs = -(-rows // most)
        partial = x.new_empty(programs, width, dtype=torch.float32)
        _kernels().backward[(programs, columns)](
            x, bias, into_y.contiguous(), into_x, partial, rows, most, WIDTH=width, LANES=LANES, ROWS=ROWS
        )
        return into_x, partial.sum(0).to(bias.dtype)


def _kernels() -> Any:
    from vitrail.kernels.gelu import triton_kernels

    return triton_kernels
