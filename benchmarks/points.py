"""Operations on point clouds against the packages that users take: fpsample (vanilla form) and SciPy's cKDTree.

    python benchmarks/points.py --peers FOLDER    # a folder with fpsample, if it is not installed

Clouds are uniform in the unit cube, one thread, one cloud; the runs of both sides alternate, and the table has medians.
Farthest points must be those of the textbook loop, which is checked for each cloud.
"""

import argparse
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

from vitrail.kernels.points import ball_query, farthest_points, nearest_points

FARTHEST = ((1024, 512, 1), (4096, 1024, 5), (50_000, 4096, 15))
NEIGHBORS = ((4096, 1024, 16), (50_000, 4096, 16))


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each call, run in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            started = perf_counter()
            call()
            if number:  # the first round warms up
                times[name].append(1000 * (perf_counter() - started))
    return {name: median(values) for name, values in times.items()}


def show(title: str, times: dict[str, float], aim: float | None = None) -> None:
    """Print a row: times, the factor of the second call over the first, the factor aimed at."""
    (ours, mine), (peer, theirs) = times.items()
    wanted = "" if aim is None else f"  (aim {aim:g})"
    print(f"{title:<44} {ours} {mine:8.2f} ms   {peer} {theirs:8.2f} ms   {theirs / mine:6.1f}x{wanted}")


def textbook(points: np.ndarray, count: int) -> np.ndarray:
    """Choose farthest points by the loop of the textbook."""
    chosen, distances = [0], np.full(len(points), np.inf, dtype=np.float32)
    while len(chosen) < count:
        x, y, z = (points - points[chosen[-1]]).T
        distances = np.minimum(distances, x * x + y * y + z * z)
        chosen.append(int(distances.argmax()))
    return np.array(chosen)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="folder with fpsample")
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    if chosen.peers:
        sys.path.append(chosen.peers)
    import fpsample  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    for size, count, aim in FARTHEST:
        points = draw.random((size, 3), dtype=np.float32)
        cloud = torch.from_numpy(points)[None]
        same = np.array_equal(farthest_points(cloud, count, 0)[0].numpy(), textbook(points, count))
        calls = {
            "ours": lambda cloud=cloud, count=count: farthest_points(cloud, count, 0),
            "fpsample": lambda points=points, count=count: fpsample.fps_sampling(points, count, start_idx=0),
        }
        title = f"farthest {size:,} -> {count:,}, {'the textbook’s indices' if same else 'OTHER INDICES'}"
        show(title, interleaved(calls, chosen.rounds), aim)
    for size, asked, k in NEIGHBORS:
        points = draw.random((size, 3), dtype=np.float32)
        cloud, queries = torch.from_numpy(points)[None], torch.from_numpy(points[:asked])[None]
        calls = {
            "ours": lambda cloud=cloud, queries=queries, k=k: nearest_points(cloud, queries, k),
            "cKDTree": lambda points=points, asked=asked, k=k: cKDTree(points).query(points[:asked], k),
        }
        show(f"{k} nearest of {asked:,} in {size:,}", interleaved(calls, chosen.rounds))
        radius = (k / size) ** (1 / 3)
        calls = {
            "ours": lambda cloud=cloud, queries=queries, r=radius, k=k: ball_query(cloud, queries, (r,), (k,)),
            "cKDTree": lambda points=points, asked=asked, r=radius: cKDTree(points).query_ball_point(points[:asked], r),
        }
        show(f"ball of {radius:.3f} at {asked:,} in {size:,}", interleaved(calls, chosen.rounds))


if __name__ == "__main__":
    main()
