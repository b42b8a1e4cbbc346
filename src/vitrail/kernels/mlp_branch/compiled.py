"""The branch of an MLP in one operation.

For the gradient it keeps the input, the moments of its norm and the first product. The normed input and GELU's answer
are cheap to compute anew, and take as much memory as all of these.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.branch import Linear, Norm, as_fp32, computing, in_dtypes, refuses_branch
from vitrail.native.rows import gelu, gelu_back_, norm, norm_again, norm_back, rejoin, rejoin_back
from vitrail.shapes import Tokens


def refuses(x: Tokens, norm: Norm, first: Linear, second: Linear, keep: Tensor | None) -> str | None:
    """Say why compiled code cannot compute this branch."""
    return refuses_branch(x, norm.weight, norm.bias, *first, *second)


def transform(x: Tokens, norm: Norm, first: Linear, second: Linear, keep: Tensor | None) -> Tensor:
    """Compute the branch; the arguments are those of the reference."""
    return _Transform.apply(x, norm.eps, keep, norm.weight, norm.bias, *first, *second)  # pyright: ignore[reportReturnType]


class _Transform(Function):
    """x + keep * (gelu(norm(x) W1' + b1) W2' + b2)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, keep: Tensor | None, *weights: Tensor) -> Tensor:
        dtype = computing(x)
        scale, shift, bias1, bias2 = as_fp32(*weights[:2], weights[3], weights[5])
        first, second = (weight.detach().to(dtype) for weight in (weights[2], weights[4]))
        keep = None if keep is None else keep.detach().float()
        rows = x.detach().contiguous().flatten(0, -2)
        normed, moments = norm(rows, scale, shift, eps, dtype)
        hidden = normed @ first.t()
        del normed
        y = rejoin(gelu(hidden, bias1) @ second.t(), bias2, keep, rows)
        ctx.dtypes = [weight.dtype for weight in weights]
        ctx.save_for_backward(rows, moments, hidden, keep, scale, shift, first, bias1, second)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, into_y: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, moments, hidden, keep, scale, shift, first, bias1, second = ctx.saved_tensors
        past = into_y.contiguous().flatten(0, -2)
        into_branch, into_bias2 = rejoin_back(past, keep, hidden.dtype)
        into_hidden = into_branch @ second
        activated, into_bias1 = gelu_back_(hidden, bias1, into_hidden)
        into_second = into_branch.t() @ activated if ctx.needs_input_grad[7] else None
        del activated, into_branch
        into_normed = into_hidden @ first
        into_first = None
        if ctx.needs_input_grad[5]:
            into_first = into_hidden.t() @ norm_again(rows, scale, shift, moments, hidden.dtype)
        del into_hidden
        into_x, into_scale, into_shift = norm_back(rows, scale, moments, into_normed, past)
        found = (into_scale, into_shift, into_first, into_bias1, into_second, into_bias2)
        return into_x.view(into_y.shape), None, None, *in_dtypes(found, ctx.dtypes)
