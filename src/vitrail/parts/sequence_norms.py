"""Norms of language models: root mean square, and running quadratic mean."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vitrail.shapes import Tokens


class RMSNorm(nn.Module):
    """Division by the root mean square of a token's channels.

    y = gamma * x / sqrt(mean_c(x^2) + eps)

    "Root Mean Square Layer Normalization", section 3. The statistics are taken in fp32 at least.

    Args:
        dim: channels C.
        eps: added to the mean square.

    Example:
        >>> RMSNorm(2, eps=0.0)(torch.tensor([[[3.0, 4.0]]])).mul(12.5**0.5)
        tensor([[[3., 4.]]], grad_fn=<MulBackward0>)
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tokens) -> Tokens:
        """Normalise each token."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = (wide.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt()
        return (wide * inverse).to(x.dtype) * self.weight.to(x.dtype)


class PowerNorm(nn.Module):
    """Division of each channel by the running quadratic mean over all tokens.

    y = gamma * x / psi + beta, psi^2 <- a psi^2 + (1 - a) mean(x^2) after each step, over batch and tokens

    "PowerNorm: Rethinking Batch Normalization in Transformers", section 4.2, algorithm 2. Training also divides by the
    running psi, of the steps before; its gradient is approximated by running statistics, since psi depends on all of
    them. Evaluation is a fixed scale, so padding and the rest of the batch change nothing; in training, padded tokens
    of a batch count like the others.

    Args:
        dim: channels C.
        momentum: a, the share of the old statistic.
        eps: added to the mean square.
    """

    mean_square: Tensor
    gradient: Tensor

    def __init__(self, dim: int, momentum: float = 0.9, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean_square", torch.ones(dim))
        self.register_buffer("gradient", torch.zeros(dim))

    def forward(self, x: Tokens) -> Tokens:
        """Normalise each channel by its running statistic."""
        inverse = (self.mean_square + self.eps).rsqrt().to(x.dtype)
        if not self.training:
            return x * inverse * self.weight.to(x.dtype) + self.bias.to(x.dtype)
        scaled = _RunningScale.apply(x, inverse, self.gradient, self.momentum)
        with torch.no_grad():
            now = x.detach().to(self.mean_square.dtype).square().mean(dim=(0, 1))
            self.mean_square.lerp_(now, 1 - self.momentum)
        return scaled * self.weight.to(x.dtype) + self.bias.to(x.dtype)


class _RunningScale(torch.autograd.Function):
    """`z = x / psi` with PowerNorm's gradient (algorithm 2, backward).

    dL/dx = (g - nu * z) / psi; nu <- nu (1 - (1 - a) mean(z^2)) + (1 - a) mean(g z), over batch and tokens
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, inverse: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Scale the channels."""
        scaled = x * inverse
        ctx.momentum, ctx.gradient = momentum, gradient
        ctx.save_for_backward(scaled, inverse)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the approximated gradient of x and update the running statistic nu."""
        scaled, inverse = ctx.saved_tensors
        nu, share = ctx.gradient, 1 - ctx.momentum
        into_x = (grad - nu.to(grad.dtype) * scaled) * inverse
        wide, g = scaled.to(nu.dtype), grad.to(nu.dtype)
        nu.mul_(1 - share * wide.square().mean(dim=(0, 1))).add_((g * wide).mean(dim=(0, 1)), alpha=share)
        return into_x, None, None, None
