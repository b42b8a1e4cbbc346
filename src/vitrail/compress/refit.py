"""Least squares: the layer after removed channels reproduces its output from the remaining channels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vitrail.compress.moments import InputMoments


def refitted(
    weight: Tensor, bias: Tensor | None, keep: Sequence[int], moments: InputMoments
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias for some of the inputs of a layer that are nearest to its outputs on data.

    min E |W' x_K + b' - W x - b|^2 + e |W' - W_K|^2:  W' = (W C_K + e W_K) (C_KK + e I)^-1,  b' = b + W m - W' m_K

    with mean m and covariance C of the inputs; without a bias C is the mean outer product. The small e keeps W' near
    the columns unchanged in directions without data.

    Args:
        weight: W, `(out, in)`.
        bias: b, `(out,)`, or None.
        keep: inputs K that stay.
        moments: of the inputs.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 6.0], [-1.0, -2.0]])  # the second input is twice the first
        >>> moments = InputMoments(x.double().mean(0), x.double().T.cov(correction=0), 10**6)
        >>> new, _ = refitted(torch.ones(1, 2), torch.zeros(1), [0], moments)
        >>> round(new.item(), 1)
        3.0
    """
    kept, whole = list(keep), weight.detach().double()
    matrix = (moments.second if bias is None else moments.covariance).to(whole.device)
    inner = matrix[kept][:, kept]
    small = moments.ridge(inner)
    left = whole @ matrix[:, kept] + small * whole[:, kept]
    new = torch.linalg.solve(inner + small * torch.eye(len(kept), dtype=inner.dtype, device=inner.device), left.mT).mT
    if bias is None:
        return new.to(weight.dtype), None
    mean = moments.mean.to(whole.device)
    return new.to(weight.dtype), (bias.detach().double() + whole @ mean - new @ mean[kept]).to(bias.dtype)


def put_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Fill a linear layer."""
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight)
        if bias is not None:
            layer.get_parameter("bias").copy_(bias)


def refit_inputs(
    before: dict[str, tuple[Tensor, Tensor | None]],
    model: nn.Module,
    keep: dict[str, list[int]],
    moments: Mapping[str, InputMoments],
) -> None:
    """Refit each layer of a pruned model.

    Args:
        before: weight and bias of each layer before, by its name.
        model: the pruned model.
        keep: inputs of each layer that stayed.
        moments: of its inputs before.
    """
    for name, kept in keep.items():
        if name in moments:
            put_weights(model.get_submodule(name), *refitted(*before[name], kept, moments[name]))
