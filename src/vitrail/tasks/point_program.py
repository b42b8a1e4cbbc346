"""The program of a model of point clouds."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.parts.model import Model
from vitrail.parts.sort_net import LocalFeatures
from vitrail.tasks.program import NamedAxis, ProgramSpec, Sizes, TensorSpec

CLEAR = 4
"""Rounding errors of a score between two neighbouring ones that no runtime puts in another order."""
TRIES = 64
"""Clouds to choose from, if none of them is clear."""


def point_program(model: Model, output: TensorSpec) -> ProgramSpec:
    """Return the program of a model of clouds `(B, N, 3)` in the unit sphere.

    The order of picks is a decision: two scores as near as their rounding may change places in another runtime. So the
    clouds that a file is compared on have scores that are `CLEAR`.

    Args:
        model: its `sampling` states the number of points.
        output: logits of a cloud or of each point.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("pointnet", dim=8, global_dim=8, num_classes=3)
        >>> point_program(model, TensorSpec("logits", ("batch", 3), classes=1)).inputs[0].shape
        ('batch', 'points', 3)
    """
    own = model.sampling.points
    tried = tuple(max(own + step, 8) for step in (0, 0, 13, -9, 40, 1, 77, 22))
    axis = NamedAxis("points", own, own + 96, (own, tried[2]), tried)
    shape = TensorSpec("points", ("batch", "points", model.in_channels))

    clear = _clearness(model)

    def draw(sizes: Sizes, generator: torch.Generator) -> tuple[Tensor, ...]:
        batch, *one = shape.dims(sizes)
        return (torch.cat([_cloud(one, clear, generator) for _ in range(batch)]),)

    return ProgramSpec(model, (shape,), (output,), (axis,), draw)


def _cloud(shape: list[int], clear: Callable[[Tensor], float], generator: torch.Generator) -> Tensor:
    """Return a random cloud `(1, N, C)` whose picks are clear, or the clearest of `TRIES`."""
    clearest = -1.0, torch.zeros(0)
    for _ in range(TRIES):
        points = torch.randn(1, *shape, generator=generator)
        points = points / points.norm(dim=2).max()
        clearest = max(clearest, (clear(points), points), key=lambda tried: tried[0])
        if clearest[0] >= CLEAR:
            break
    return clearest[1]


def _clearness(model: Model) -> Callable[[Tensor], float]:
    """Return the smallest gap between the picks of a cloud in rounding errors; infinite without SortNets."""
    backbone: Any = model.backbone
    local = getattr(backbone, "local", None)
    if not isinstance(local, LocalFeatures):
        return lambda points: torch.inf
    parts = nn.ModuleList([nn.Sequential(backbone.embedding, backbone.block), *local.sort_nets])

    @cache
    def exact() -> nn.ModuleList:
        return deepcopy(parts).double()

    @torch.no_grad()
    def clear(points: Tensor) -> float:
        return min(map(smallest_gap, _scores(parts, points), _scores(exact(), points.double()), _kept(local)))

    return clear


def _scores(parts: nn.ModuleList, points: Tensor) -> list[Tensor]:
    """Return the scores `(1, N)` of each SortNet."""
    features, *nets = parts
    read = features(points)
    return [net.score(read)[..., 0] for net in nets]  # pyright: ignore[reportCallIssue]


def _kept(local: LocalFeatures) -> list[int]:
    return [net.picks for net in local.sort_nets]  # pyright: ignore[reportReturnType]


def smallest_gap(scores: Tensor, exact: Tensor, picks: int) -> float:
    """Return the smallest difference of neighbouring picks, the first that is left out included, in rounding errors.

    Args:
        scores: `(1, N)` of fp32.
        exact: the same scores in fp64.
        picks: number of picks.

    Example:
        >>> exact = torch.tensor([[3.0, 1.0, 2.0, 0.0]]).double()
        >>> smallest_gap((exact + 0.25).float(), exact, 2)
        4.0
    """
    error = (scores - exact).abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    best = exact.sort(dim=1, descending=True).values[:, : picks + 1]
    return float((best[:, :-1] - best[:, 1:]).min() / error)
