"""Operations on point clouds as the textbooks write them: slow, readable, the specification of every backend.

Squared distances are `(dx dx + dy dy) + dz dz`, rounded after each operation, in fp32 (or fp64 if the clouds are). Of
equal distances the lowest index comes first, so the indices are the same on every machine.
"""

from functools import reduce

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.kernels.points.checks import check_balls, check_count, check_points


def farthest_points(points: Tensor, count: int, start: int) -> Tensor:
    """Choose points one by one, each the farthest from all chosen before.

    i_1 = start;  i_{t+1} = argmax_j min_{s <= t} |p_j - p_{i_s}|^2

    "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", Qi et al., 2017, section 3.2;
    Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985. If all remaining points are duplicates
    of chosen ones, the lowest index is repeated.

    Args:
        points: clouds `(B, N, D)`.
        count: number of points to choose, at most N.
        start: index of the first.

    Returns:
        `(B, count)` indices in the order of choice.

    Raises:
        VitrailError: `count` or `start` does not fit.
        DataError: a coordinate is not finite.

    Example:
        >>> line = torch.tensor([[[0.0], [1.0], [2.0], [5.0]]])
        >>> farthest_points(line, 3, 0).tolist()
        [[0, 3, 2]]
    """
    check_points(points)
    check_count(count, points, "farthest points")
    check_start(start, points)
    points = at_least_fp32(points)
    clouds = torch.arange(points.shape[0], device=points.device)  # `len` would fix the batch of an exported program
    distances = points.new_full(points.shape[:2], torch.inf)
    latest = torch.full_like(clouds, start)
    chosen = [latest]
    for _ in range(count - 1):
        distances = torch.minimum(distances, squared_distances(points, points[clouds, latest][:, None])[:, 0])
        highest = distances == distances.max(dim=1, keepdim=True).values
        latest = highest.int().argmax(dim=1)  # the first of equal ones
        chosen.append(latest)
    return torch.stack(chosen, dim=1)


def nearest_points(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest points of each query, in the order of distance, then index.

    Args:
        points: clouds `(B, N, D)`.
        queries: `(B, M, D)`.
        k: number of neighbors, at most N.

    Returns:
        Indices and squared distances, each `(B, M, k)`.

    Raises:
        VitrailError: the shapes do not fit, or k does not.
        DataError: a coordinate is not finite.

    Example:
        >>> line = torch.tensor([[[0.0], [1.0], [2.0], [5.0]]])
        >>> nearest_points(line, torch.tensor([[[1.0]]]), 3)[0].tolist()
        [[[1, 0, 2]]]
    """
    check_points(points, queries)
    check_count(k, points, "neighbors")
    distances, index = squared_distances(at_least_fp32(points), at_least_fp32(queries)).sort(dim=-1, stable=True)
    return index[..., :k], distances[..., :k]


def ball_query(
    points: Tensor, queries: Tensor, radii: tuple[float, ...], sizes: tuple[int, ...]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the points within one or several radii of each query: the first `sizes` of them by index.

    "PointNet++", section 3.2 (ball query) and 3.3 (multi-scale grouping). A ball with fewer points repeats its first
    one; an empty ball holds the nearest point, and its count is 0.

    Args:
        points: clouds `(B, N, D)`.
        queries: centres `(B, M, D)`.
        radii: largest distances, inclusive; compared squared.
        sizes: number of points for each radius.

    Returns:
        For each radius the indices `(B, M, size)`; and `(B, M, radii)`, the number of different points in each.

    Raises:
        VitrailError: the shapes, radii or sizes do not fit.
        DataError: a coordinate is not finite.

    Example:
        >>> line = torch.tensor([[[0.0], [1.0], [2.0], [5.0]]])
        >>> (small, large), counts = ball_query(line, torch.tensor([[[4.0]]]), (0.5, 2.0), (1, 3))
        >>> small.tolist(), large.tolist(), counts.tolist()
        ([[[3]]], [[[2, 3, 2]]], [[[0, 2]]])
    """
    check_points(points, queries)
    check_balls(radii, sizes)
    distances = squared_distances(at_least_fp32(points), at_least_fp32(queries))
    found = [_ball(distances, radius, size) for radius, size in zip(radii, sizes, strict=True)]
    return tuple(index for index, _ in found), torch.stack([count for _, count in found], dim=-1)


def _ball(distances: Tensor, radius: float, size: int) -> tuple[Tensor, Tensor]:
    reach = distances.new_tensor(radius)
    inside = distances <= reach * reach  # (B, M, N)
    count = distances.shape[-1]
    places = torch.arange(count, device=distances.device).expand_as(distances)
    order = torch.where(inside, places, count).sort(dim=-1).values[..., :size]  # outside last; no order of equal values
    counts = inside.sum(-1).clamp_max(size)
    if order.shape[-1] < size:
        order = torch.cat([order, order[..., :1].expand(*order.shape[:2], size - order.shape[-1])], dim=-1)
    first = torch.where(counts > 0, order[..., 0], distances.sort(dim=-1, stable=True).indices[..., 0])
    held = torch.arange(size, device=distances.device) < counts[..., None]
    return torch.where(held, order, first[..., None]), counts


def squared_distances(points: Tensor, queries: Tensor) -> Tensor:
    """Return `(B, M, N)` squared distances of queries `(B, M, D)` to points `(B, N, D)`, axis after axis.

    Example:
        >>> squared_distances(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]), torch.tensor([[[0.0, 0.0]]]))
        tensor([[[ 0., 25.]]])
    """
    axes = [points[:, None, :, d] - queries[:, :, None, d] for d in range(points.shape[2])]
    return reduce(torch.add, [axis * axis for axis in axes])


def at_least_fp32(points: Tensor) -> Tensor:
    """Return fp32 or fp64 coordinates."""
    return points if points.dtype == torch.float64 else points.float()


def check_start(start: int, points: Tensor) -> None:
    """Refuse a first point that is not in the cloud."""
    if not 0 <= start < points.shape[1]:
        raise VitrailError(f"start is {start}; it must be the index of one of the {points.shape[1]} points.")
