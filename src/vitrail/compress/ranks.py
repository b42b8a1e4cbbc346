"""Ranks of linear layers by energy or by budget, and factors that are nearest on data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.compress.moments import InputMoments
from vitrail.parts.model import Model
from vitrail.parts.positions import NoPosition

STEP = 8
"""Ranks are multiples of this."""

LEAST = 16
"""Layers with fewer channels on a side keep their rank: nothing is saved."""


def low_rank_layers(model: Model) -> dict[str, nn.Linear]:
    """Return the plain linear layers that may become products: those in blocks, but none of a position.

    Example:
        >>> from vitrail.models import create_model
        >>> len(low_rank_layers(create_model("vit_tiny_patch16_224", depth=1)))
        4
    """
    positions = {id(part) for module in model.modules() if isinstance(module, NoPosition) for part in module.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and "blocks" in name.split(".") and min(module.weight.shape) >= LEAST
        if id(module) not in positions
    }


def spectrum(layer: nn.Linear, moments: InputMoments | None = None) -> Tensor:
    """Return the singular values of a layer's weight, or of its outputs on data (of `W C^(1/2)`).

    Example:
        >>> spectrum(nn.Linear(4, 3)).shape
        torch.Size([3])
    """
    return torch.linalg.svdvals(_weighted(layer, moments)[0])


def ranks_by_energy(
    spectra: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]], share: float
) -> dict[str, int]:
    """Return the least rank of each layer that keeps a share of its squared singular values, where it saves weights.

    Ranks are multiples of 8, the numbers of a vector register.

    Example:
        >>> ranks_by_energy({"a": 0.5 ** torch.arange(64)}, {"a": (64, 64)}, 0.99)
        {'a': 8}
    """
    ranks = {}
    for name, values in spectra.items():
        energy = values.double().square().cumsum(0)
        rank = -(-(int((energy < share * energy[-1] * (1 - 1e-12)).sum()) + 1) // STEP) * STEP
        if saves(shapes[name], rank):
            ranks[name] = rank
    return ranks


def ranks_by_budget(
    spectra: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]], share: float
) -> dict[str, int]:
    """Return ranks with a share of all weights in total, so that the least energy is lost.

    Eight singular values cost `8 (in + out)` weights and are worth their share of the layer's energy: the best by worth
    for cost stay. A layer that would save nothing stays whole.

    Example:
        >>> values = {"a": 0.5 ** torch.arange(64), "b": torch.ones(64)}
        >>> ranks_by_budget(values, {"a": (64, 64), "b": (64, 64)}, 0.75)
        {'a': 16}
    """
    total = sum(rows * columns for rows, columns in shapes.values())
    worth = []
    for name, values in spectra.items():
        energy = values.double().square()
        groups = energy[: len(energy) // STEP * STEP].view(-1, STEP).sum(1) / energy.sum().clamp(min=1e-30)
        worth += [(float(value) / sum(shapes[name]), name) for value in groups]
    ranks, spent = dict.fromkeys(spectra, 0), 0
    for _, name in sorted(worth, reverse=True):
        more = _cost(shapes[name], ranks[name] + STEP) - _cost(shapes[name], ranks[name])
        if spent + more <= share * total:
            ranks[name], spent = ranks[name] + STEP, spent + more
    return {name: max(rank, STEP) for name, rank in ranks.items() if saves(shapes[name], max(rank, STEP))}


def _cost(shape: tuple[int, int], rank: int) -> int:
    return min(rank * sum(shape), shape[0] * shape[1])


def saves(shape: tuple[int, int], rank: int) -> bool:
    """Return whether two factors have fewer weights than their product.

    Example:
        >>> saves((4, 4), 1), saves((4, 4), 2)
        (True, False)
    """
    return rank * sum(shape) < shape[0] * shape[1]


def nearest_factors(layer: nn.Linear, rank: int, moments: InputMoments) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return U, V and bias of a rank whose outputs are nearest to those of a layer on data.

    min E |U V x + b' - W x - b|^2: with C = L L^T the covariance of x and P S Q^T the decomposition of W L,
    U = P_r S_r^(1/2), V = S_r^(1/2) Q_r^T L^-1, b' = b + (W - U V) m. Eckart and Young, in the metric of the data.
    """
    weighted, root = _weighted(layer, moments)
    u, s, v = torch.linalg.svd(weighted, full_matrices=False)
    scale = s[:rank].sqrt()
    first = torch.linalg.solve_triangular(root.mT, (scale[:, None] * v[:rank]).mT, upper=True).mT  # V L = scale v
    second, weight = u[:, :rank] * scale, layer.weight.detach()
    if layer.bias is None:
        return second.to(weight.dtype), first.to(weight.dtype), None
    mean = moments.mean.to(weight.device)
    bias = layer.bias.detach().double() + weight.double() @ mean - second @ (first @ mean)
    return second.to(weight.dtype), first.to(weight.dtype), bias.to(weight.dtype)


def _weighted(layer: Any, moments: InputMoments | None) -> tuple[Tensor, Tensor]:
    """Return `W L` and L with `C = L L^T`."""
    weight = layer.weight.detach().double()
    if moments is None:
        return weight, torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    matrix = (moments.second if layer.bias is None else moments.covariance).to(weight.device)
    small = moments.ridge(matrix)
    root = torch.linalg.cholesky(matrix + small * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))
    return weight @ root, root
