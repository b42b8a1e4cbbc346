"""A sum and its LayerNorm, one after the other."""

from torch import Tensor
from torch.nn.functional import layer_norm


def add_layer_norm(x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return `s = x + branch` and `weight * (s - mean(s)) / sqrt(var(s) + eps) + bias`.

    "Layer Normalization", equation 4; mean and variance over the channels of each token.

    Args:
        x: `(*, C)`.
        branch: residual branch, `(*, C)`; None adds nothing.
        weight: `(C,)`.
        bias: `(C,)`.
        eps: added to the variance.

    Example:
        >>> import torch
        >>> ones = torch.ones(2)
        >>> total, normed = add_layer_norm(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]), ones, 0 * ones, 0.0)
        >>> total.tolist(), normed.tolist()
        ([[2.0, 4.0]], [[-1.0, 1.0]])
    """
    total = x if branch is None else x + branch
    return total, layer_norm(total, weight.shape, weight.to(total.dtype), bias.to(total.dtype), eps)
