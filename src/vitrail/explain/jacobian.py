"""Norms of the blocks of a Jacobian, by pulling directions of the output back to the input."""

import torch
from torch import Tensor


def jacobian_norm(y: Tensor, x: Tensor, probes: int | None) -> Tensor:
    """Return how strongly each value of `x` moves the vectors `y`: the squares of the Jacobian, summed over channels.

    sum_c (d y_c / d x)^2 = E (v^T d y / d x)^2 for directions v of random signs; each unit vector in turn is exact.

    Args:
        y: one vector a sample, `(B, C)`; its graph reaches `x` and is kept.
        x: the input of `y`, `(B, ...)`.
        probes: how many random directions; None takes every channel.

    Example:
        >>> x = torch.tensor([[3.0, 5.0]], requires_grad=True)
        >>> jacobian_norm(x * torch.tensor([1.0, 2.0]), x, probes=None).tolist()
        [[1.0, 4.0]]
    """
    total = torch.zeros_like(x, requires_grad=False)
    for v in _directions(y.shape[1], probes).to(y):
        (pulled,) = torch.autograd.grad(y, x, v.expand_as(y), retain_graph=True)
        total += pulled.square()
    return total if probes is None else total / probes


def _directions(dim: int, probes: int | None) -> Tensor:
    if probes is None:
        return torch.eye(dim)
    generator = torch.Generator().manual_seed(0)  # the same question gets the same answer
    return torch.randint(0, 2, (probes, dim), generator=generator) * 2.0 - 1.0
