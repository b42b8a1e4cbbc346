"""Muon: momentum whose matrices are made orthogonal before they are added to the weights; AdamW for all the rest."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for the matrices of blocks, AdamW for embeddings, heads, norms and biases.

    m = b m + g; O = orthogonal(g + b m); w = w - lr (0.2 sqrt(max(rows, columns)) O + decay w)

    "Muon: An optimizer for hidden layers in neural networks", Jordan et al. 2024; the factor of "Muon is Scalable for
    LLM Training", Liu et al. 2025, section 2.2, gives the update the root mean square of AdamW's, so both kinds of
    parameters take one learning rate.

    Args:
        groups: parameter groups; those with `hidden` hold matrices.
        momentum: b.
        betas: decay of AdamW's moments.
        eps: AdamW's epsilon.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ):
        defaults = {"lr": 0.0, "weight_decay": 0.0, "hidden": False, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            update = self._orthogonal if group["hidden"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(group, parameter, parameter.grad)

    def _orthogonal(self, group: dict[str, Any], parameter: Tensor, grad: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(grad)
        update = orthogonal(grad + group["momentum"] * state["momentum"])
        parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)

    def _adamw(self, group: dict[str, Any], parameter: Tensor, grad: Tensor) -> None:
        state, (one, two) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - one)
        state["square"].mul_(two).addcmul_(grad, grad, value=1 - two)
        mean = state["mean"] / (1 - one ** state["step"])
        square = state["square"] / (1 - two ** state["step"])
        parameter.addcdiv_(mean, square.sqrt_().add_(group["eps"]), value=-group["lr"])


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return a nearly orthogonal matrix with the singular vectors of the given one: singular values near 1.

    X = a X + (b A + c A A) X, A = X X^T, from X = G / |G|: a quintic Newton-Schulz iteration. Its coefficients are
    tuned for steep convergence from small values, so singular values end in about 0.7 to 1.2.

    Args:
        matrix: `(m, n)`.
        steps: iterations.

    Example:
        >>> values = torch.linalg.svdvals(orthogonal(torch.randn(8, 32, generator=torch.manual_seed(0))))
        >>> bool((values > 0.6).all() and (values < 1.3).all())
        True
    """
    a, b, c = _COEFFICIENTS
    x = matrix.float().mT if matrix.shape[0] > matrix.shape[1] else matrix.float()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.addmm(a * x, torch.addmm(b * gram, gram, gram, alpha=c), x)
    return x.mT if matrix.shape[0] > matrix.shape[1] else x


def split_hidden(groups: list[dict[str, Any]], hidden: Collection[nn.Parameter]) -> list[dict[str, Any]]:
    """Split parameter groups into those of hidden matrices and the others.

    Example:
        >>> from torch import nn
        >>> weight, bias = nn.Linear(2, 2).parameters()
        >>> [len(group["params"]) for group in split_hidden([{"params": [weight, bias], "lr": 0.1}], {weight})]
        [1, 1]
    """
    parts = []
    for group in groups:
        for kind in (True, False):
            chosen = [p for p in group["params"] if (p in hidden) is kind]
            if chosen:
                parts.append({**group, "params": chosen, "hidden": kind})
    return parts
