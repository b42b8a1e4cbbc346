"""Residual branch of an MLP as one autograd function.

It saves the normalised input and the first GEMM's output; GELU and its derivative are recomputed.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.fused_types import (
    LinearWeights,
    NormWeights,
    as_fp32,
    branch_unsupported_reason,
    compute_dtype,
    in_dtypes,
)
from vitrail.native.fused_train import Inner, Normed, mlp, mlp_backward
from vitrail.shapes import Tokens


def unsupported_reason(
    x: Tokens, norm: NormWeights, first: LinearWeights, second: LinearWeights, drop_scale: Tensor | None
) -> str | None:
    """Return why native code cannot compute this branch, or None."""
    return branch_unsupported_reason(x, norm.weight, norm.bias, *first, *second)


def transform(
    x: Tokens, norm: NormWeights, first: LinearWeights, second: LinearWeights, drop_scale: Tensor | None
) -> Tensor:
    """Compute the branch; the arguments are those of the reference."""
    learn = torch.is_grad_enabled()
    return _Transform.apply(x, norm.eps, drop_scale, learn, norm.weight, norm.bias, *first, *second)  # pyright: ignore[reportReturnType]


class _Transform(Function):
    """x + drop_scale * (gelu(norm(x) W1' + b1) W2' + b2)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, drop_scale: Tensor | None, learn: bool, *weights: Tensor) -> Tensor:
        scale, shift, bias1, bias2 = as_fp32(*weights[:2], weights[3], weights[5])
        drop_scale = None if drop_scale is None else drop_scale.detach().float()
        rows = x.detach().contiguous().flatten(0, -2)
        inner = Inner(weights[2], bias1, weights[4], bias2)
        y, normed, hidden = mlp(rows, scale, shift, eps, inner, drop_scale, compute_dtype(x), learn)
        ctx.dtypes = [weight.dtype for weight in weights]
        ctx.save_for_backward(drop_scale, hidden, *normed, *inner)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        drop_scale, hidden, *rest = ctx.saved_tensors
        past = into_y.contiguous().flatten(0, -2)
        wanted = ctx.needs_input_grad[6], ctx.needs_input_grad[8]
        into_x, into_scale, into_shift, into = mlp_backward(
            past, Normed(*rest[:4]), hidden, Inner(*rest[4:]), drop_scale, wanted
        )
        found = in_dtypes((into_scale, into_shift, *into), ctx.dtypes)
        return into_x.view(into_y.shape), None, None, None, *found
