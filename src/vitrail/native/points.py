"""Native operations on point clouds; the arguments are checked by their callers in `kernels/points`."""

import torch
from torch import Tensor

from vitrail.errors import ResourceError
from vitrail.native.build import library
from vitrail.native.ffi import at, invoke


def farthest(points: Tensor, count: int, start: int) -> Tensor:
    """Return `(B, count)` indices of farthest points in clouds `(B, N, 3)` of fp32."""
    clouds, size = points.shape[:2]
    chosen = torch.empty(clouds, count, dtype=torch.int64)
    done = invoke(
        library("points").vitrail_farthest,
        points=at(points),
        clouds=clouds,
        size=size,
        count=count,
        start=start,
        chosen=at(chosen),
        threads=torch.get_num_threads(),
    )
    _check(done, size)
    return chosen


def nearest(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return indices and squared distances of the k nearest points, each `(B, M, k)`."""
    (clouds, size), asked = points.shape[:2], queries.shape[1]
    index = torch.empty(clouds, asked, k, dtype=torch.int64)
    distances = torch.empty(clouds, asked, k)
    done = invoke(
        library("points").vitrail_nearest,
        points=at(points),
        queries=at(queries),
        clouds=clouds,
        size=size,
        asked=asked,
        k=k,
        index=at(index),
        distances=at(distances),
        threads=torch.get_num_threads(),
    )
    _check(done, size)
    return index, distances


def balls(points: Tensor, queries: Tensor, radii: tuple[float, ...], sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return `(B, M, sum(sizes))` indices of the balls of all radii, and the number of points found in each."""
    (clouds, size), asked = points.shape[:2], queries.shape[1]
    reaches = torch.tensor(radii, dtype=torch.float32)
    reaches = reaches * reaches
    rooms = torch.tensor(sizes, dtype=torch.int64)
    index = torch.empty(clouds, asked, sum(sizes), dtype=torch.int64)
    counts = torch.empty(clouds, asked, len(radii), dtype=torch.int64)
    done = invoke(
        library("points").vitrail_balls,
        points=at(points),
        queries=at(queries),
        clouds=clouds,
        size=size,
        asked=asked,
        radii=len(radii),
        reaches=at(reaches),
        rooms=at(rooms),
        index=at(index),
        counts=at(counts),
        threads=torch.get_num_threads(),
    )
    _check(done, size)
    return index, counts


def _check(done: int, size: int) -> None:
    if not done:
        raise ResourceError(f"The search tree of {size:,} points does not fit in memory. Sample the cloud first.")
