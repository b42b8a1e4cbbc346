"""Gathering of points and their features by index: differentiable, on any device."""

import torch
from torch import Tensor


def gather_points(x: Tensor, index: Tensor) -> Tensor:
    """Return rows of each cloud: `(B, N, C)` and indices `(B, ...)` to `(B, ..., C)`.

    Example:
        >>> gather_points(torch.arange(6.0).reshape(1, 3, 2), torch.tensor([[2, 0]])).tolist()
        [[[4.0, 5.0], [0.0, 1.0]]]
    """
    flat = index.flatten(1)[..., None].expand(-1, -1, x.shape[-1])
    return x.gather(1, flat).unflatten(1, index.shape[1:])  # (B, M k, C) -> (B, M, k, C)


def group_points(points: Tensor, features: Tensor | None, queries: Tensor, index: Tensor) -> Tensor:
    """Return the neighbors of each query: coordinates relative to it, then their features.

    "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", section 3.2, PointNet layer.

    Args:
        points: clouds `(B, N, D)`.
        features: `(B, N, C)`, or None.
        queries: `(B, M, D)`.
        index: neighbors of each query, `(B, M, k)`.

    Returns:
        `(B, M, k, D + C)`.
    """
    relative = gather_points(points, index) - queries[:, :, None]
    if features is None:
        return relative
    return torch.cat([relative, gather_points(features, index)], dim=-1)
