"""Residual sum and LayerNorm in Triton: supported inputs, launch, gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.triton_support import refusal, share, tile_of

MOST_CHANNELS = 8192  # a row is one tile


def unsupported_reason(x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> str | None:
    """Return why Triton cannot take these tensors."""
    if x.shape[-1] > MOST_CHANNELS:
        return f"rows of {x.shape[-1]} channels, at most {MOST_CHANNELS} fit in a tile"
    if branch is not None and branch.dtype != x.dtype:
        return f"needs one precision, got {x.dtype} and {branch.dtype}"
    return refusal(x)


def add_layer_norm(x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the sum and its LayerNorm; the arguments are those of the reference."""
    return _AddNorm.apply(x, branch, weight, bias, eps)  # pyright: ignore[reportReturnType]


class _AddNorm(Function):
    """The sum and its LayerNorm with their gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        width = x.shape[-1]
        x = x.contiguous()
        rows = x.numel() // width
        total = x if branch is None else torch.empty_like(x)
        normed, moments = torch.empty_like(x), x.new_empty(rows, 2, dtype=torch.float32)
        shape = _shape(width)
        _kernels().forward[(-(-rows // shape["ROWS"]),)](
            x, x if branch is None else branch.contiguous(), weight, bias, total, normed, moments, rows, eps,
            ADDED=branch is not None, **shape,
        )  # fmt: skip
        ctx.save_for_backward(total, weight, bias, moments)
        ctx.added = branch is not None
        return total.view_as(total), normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_total: Tensor, into_normed: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total, weight, bias, moments = ctx.saved_tensors
        width = total.shape[-1]
        rows, shape = total.numel() // width, _shape(width)
        pieces = -(-rows // shape["ROWS"])
        most = share(pieces, 1, total.device) * shape["ROWS"]
        programs = -(-rows // most)
        into_x = torch.empty_like(total)
        partial = total.new_empty(programs, 2, width, dtype=torch.float32)
        _kernels().backward[(programs,)](
            total, weight, moments, into_total.contiguous(), into_normed.contiguous(), into_x, partial, rows, most,
            **shape,
        )  # fmt: skip
        into_weight, into_bias = partial.sum(0)
        return into_x, into_x if ctx.added else None, into_weight.to(weight.dtype), into_bias.to(bias.dtype), None


def _kernels() -> Any:
    from vitrail.kernels.add_layer_norm import triton_kernels

    return triton_kernels


def _shape(width: int) -> dict[str, Any]:
    """Return the constants of the kernels: tiles of about 2048 numbers, or of a row."""
    lanes = tile_of(width)
    return dict(WIDTH=width, LANES=lanes, ROWS=max(1, 2048 // lanes), num_warps=4 if lanes <= 2048 else 8)
