"""Native operations on point clouds; the arguments are checked by their callers in `kernels/points`."""

import ctypes

import torch
from torch import Tensor

from vitrail.errors import ResourceError
from vitrail.native.build import library
from vitrail.native.ffi import at


def farthest(points: Tensor, count: int, start: int) -> Tensor:
    """Return `(B, count)` indices of farthest points in clouds `(B, N, 3)` of fp32."""
    clouds, size = points.shape[:2]
    chosen = torch.empty(clouds, count, dtype=torch.int64)
    lengths = map(ctypes.c_long, (clouds, size, count, start))
    _check(library("points").vitrail_farthest(at(points), *lengths, at(chosen), torch.get_num_threads()), size)
    return chosen


def nearest(points: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return indices and squared distances of the k nearest points, each `(B, M, k)`."""
    (clouds, size), asked = points.shape[:2], queries.shape[1]
    index = torch.empty(clouds, asked, k, dtype=torch.int64)
    distances = torch.empty(clouds, asked, k)
    lengths = map(ctypes.c_long, (clouds, size, asked))
    done = library("points").vitrail_nearest(
        at(points), at(queries), *lengths, k, at(index), at(distances), torch.get_num_threads()
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
    lengths = map(ctypes.c_long, (clouds, size, asked))
    done = library("points").vitrail_balls(
        at(points),
        at(queries),
        *lengths,
        len(radii),
        at(reaches),
        at(rooms),
        at(index),
        at(counts),
        torch.get_num_threads(),
    )
    _check(done, size)
    return index, counts


def _check(done: int, size: int) -> None:
    if not done:
        raise ResourceError(f"The search tree of {size:,} points does not fit in memory. Sample the cloud first.")
