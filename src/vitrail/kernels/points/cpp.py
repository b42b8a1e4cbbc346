"""Operations on point clouds in C++: a balanced k-d tree whose bounds are exact, so the indices are the reference's."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.kernels.points.checks import check_balls, check_count, check_points
from vitrail.kernels.points.reference import check_start
from vitrail.kernels.tracing import is_tracing
from vitrail.native import points as native
from vitrail.native.build import missing

_MOST = 2**31 - 1
_AXES = 3


def unsupported_reason(points: Tensor, *others: object) -> str | None:
    """Return why native code cannot take these tensors, or None."""
    tensors = [points, *(x for x in others if isinstance(x, Tensor))]
    if any(x.device.type != "cpu" for x in tensors):
        return f"is for CPUs, got {', '.join(sorted({x.device.type for x in tensors}))}"
    if is_tracing(*(x.detach() if type(x) is Tensor else x for x in tensors)):
        return "not traceable: torch.compile, export or a functorch transform is active"
    if any(x.dtype != torch.float32 for x in tensors):
        return f"needs fp32, got {', '.join(sorted({str(x.dtype) for x in tensors}))}"
    if any(x.ndim != _AXES or not 1 <= x.shape[2] <= _AXES for x in tensors):
        return f"needs clouds (B, N, 1 to 3), got {tuple(points.shape)}"
    if points.shape[1] > _MOST:
        return f"has indices of 32 bits, got {points.shape[1]} points"
    return missing("points")


def farthest_points(points: Tensor, count: int, start: int) -> Tensor:
    """Choose farthest points; see the reference."""
    check_points(points)
    check_count(count, points, "farthest points")
    check_start(start, points)
    return native.farthest(_three_axes(points), count, start)


def nearest_points(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest points of each query; see the reference."""
    check_points(points, queries)
    check_count(k, points, "neighbors")
    return native.nearest(_three_axes(points), _three_axes(queries), k)


def ball_query(
    points: Tensor, queries: Tensor, radii: tuple[float, ...], sizes: tuple[int, ...]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the points within radii of each query, with one search tree for all radii; see the reference."""
    check_points(points, queries)
    check_balls(radii, sizes)
    index, counts = native.balls(_three_axes(points), _three_axes(queries), radii, sizes)
    return index.split(sizes, dim=-1), counts


def _three_axes(points: Tensor) -> Tensor:
    """Return contiguous coordinates in space; added axes are 0, which changes no distance."""
    points = points.detach()
    return pad(points, (0, _AXES - points.shape[2])).contiguous()
