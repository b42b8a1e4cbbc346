"""Sampling of surfaces by area, and normalisation to the unit sphere; functions of a counter-based generator."""

import numpy as np

from vitrail.data.points.cloud import Cloud
from vitrail.data.stateless_rng import BatchRng


def sample_points(cloud: Cloud, count: int, draws: BatchRng) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw points from a mesh in proportion to area, or from the points of a cloud.

    On a triangle ABC with uniform r, s: `(1 - sqrt r) A + sqrt r (1 - s) B + sqrt r s C` ("Shape distributions", Osada
    et al., 2002, section 4.1). Points of a cloud are drawn without repetition as long as there are enough.

    Args:
        cloud: a mesh or cloud.
        count: number of points to draw.
        draws: draws of one sample.

    Returns:
        `(count, 3)`, and the part of each, or None.

    Example:
        >>> square = Cloud(np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]]))
        >>> points, _ = sample_points(square, 1000, BatchRng(0, 0, np.array([0])))
        >>> points.mean(0).round(1).tolist()
        [0.5, 0.5, 0.0]
    """
    if cloud.is_mesh:
        found = _on_faces(cloud, count, draws)
        if found is not None:
            return found
    size = len(cloud.points)
    words = draws.words("point", size)[0]
    first = np.arange(size) if count >= size else np.argpartition(words, count)[:count]  # millions are not sorted
    order = first[np.lexsort((first, words[first]))]
    chosen = np.resize(order, count)  # repeats the points of a small cloud in turn
    parts = None if cloud.parts is None or cloud.is_mesh else cloud.parts[chosen]
    return cloud.points[chosen], parts


def _on_faces(cloud: Cloud, count: int, draws: BatchRng) -> tuple[np.ndarray, np.ndarray | None] | None:
    assert cloud.faces is not None
    largest = np.abs(cloud.points).max()
    scale = largest if largest > 0 else 1.0
    a, b, c = (cloud.points[cloud.faces[:, corner]] / scale for corner in range(3))
    sums = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    if not sums[-1] > 0:  # no face has an area
        return None
    chosen = np.searchsorted(sums, draws.uniform("face", count=count)[0] * sums[-1], side="right")
    chosen = np.minimum(chosen, len(sums) - 1)
    root = np.sqrt(draws.uniform("first side", count=count)[0])[:, None]
    along = draws.uniform("second side", count=count)[0][:, None]
    points = (1 - root) * a[chosen] + root * (1 - along) * b[chosen] + root * along * c[chosen]
    return points * scale, None if cloud.parts is None else cloud.parts[chosen]


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Move the centroid to the origin and scale the farthest point to distance 1; float32.

    A single point, or equal ones, go to the origin. Coordinates up to the largest double do not overflow.

    Example:
        >>> unit_sphere(np.array([[0.0, 0, 0], [4e300, 0, 0]])).tolist()
        [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    largest = np.abs(points).max()
    points = points / (largest if largest > 0 else 1.0)
    points = points - points.mean(axis=0)
    radius = np.sqrt((points**2).sum(axis=1).max())
    return (points / radius if radius > _SMALL else np.zeros_like(points)).astype(np.float32)


_SMALL = 1e-12
