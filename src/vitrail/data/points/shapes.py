"""Analytic shapes as meshes with parts: sphere, box, cylinder, cone, torus, lamp. A data set without any file.

They are drawn, not scanned: a model that tells them apart has shown that it learns, and no more.
"""

from collections.abc import Callable

import numpy as np

from vitrail.data.points.cloud import Cloud
from vitrail.data.stateless_rng import BatchRng

_AROUND = 24
Profile = list[tuple[float, float]]


def revolve(profile: Profile, parts: list[int], around: int = _AROUND) -> Cloud:
    """Turn a profile of (radius, height) around the vertical axis.

    Args:
        profile: corners of the outline, at least two.
        parts: part of each of its segments.
        around: number of corners of a circle.

    Example:
        >>> cone = revolve([(1.0, 0.0), (0.0, 2.0)], [0], around=4)
        >>> cone.points.shape, cone.faces.shape
        ((8, 3), (8, 3))
    """
    angles = np.arange(around) * 2 * np.pi / around
    rings = [np.stack([r * np.cos(angles), r * np.sin(angles), np.full(around, z)], axis=1) for r, z in profile]
    here = np.arange(around)
    there = (here + 1) % around
    faces, numbers = [], []
    for ring, part in enumerate(parts):
        low, high = ring * around, (ring + 1) * around
        faces += [
            np.stack([low + here, low + there, high + there], 1),
            np.stack([low + here, high + there, high + here], 1),
        ]
        numbers += [np.full(2 * around, part)]
    return Cloud(np.concatenate(rings), np.concatenate(faces), np.concatenate(numbers))


def sphere() -> Cloud:
    """A ball of radius 1, one part.

    Example:
        >>> bool((np.linalg.norm(sphere().points, axis=1) < 1.001).all())
        True
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 13)
    return revolve([(float(np.cos(a)), float(np.sin(a))) for a in angles], [0] * 12)


def box() -> Cloud:
    """A cube of side 2, one part.

    Example:
        >>> box().points.shape, box().faces.shape
        ((8, 3), (12, 3))
    """
    points = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([corners for a, b, c, d in quads for corners in ((a, b, c), (a, c, d))])
    return Cloud(points, faces, np.zeros(len(faces), dtype=np.int64))


def cylinder() -> Cloud:
    """A cylinder: side (part 0) and caps (part 1).

    Example:
        >>> sorted(set(cylinder().parts.tolist()))
        [0, 1]
    """
    return revolve([(0, -1), (1, -1), (1, 1), (0, 1)], [1, 0, 1])


def cone() -> Cloud:
    """A cone: side (part 0) and base (part 1).

    Example:
        >>> sorted(set(cone().parts.tolist()))
        [0, 1]
    """
    return revolve([(0, -1), (1, -1), (0, 1)], [1, 0])


def torus() -> Cloud:
    """A ring with a tube of 0.35, one part.

    Example:
        >>> round(float(abs(torus().points[:, :2]).max()), 2)
        1.35
    """
    angles = np.linspace(0, 2 * np.pi, 13)
    return revolve([(1 + 0.35 * float(np.cos(a)), 0.35 * float(np.sin(a))) for a in angles], [0] * 12)


def lamp() -> Cloud:
    """A lamp: foot (part 0), pole (part 1) and shade (part 2).

    Example:
        >>> sorted(set(lamp().parts.tolist()))
        [0, 1, 2]
    """
    outline: Profile = [(0, -1), (0.7, -1), (0.7, -0.85), (0.08, -0.85), (0.08, 0.2), (0.8, 0.1), (0.45, 1), (0, 1)]
    return revolve(outline, [0, 0, 0, 1, 2, 2, 2])


SHAPES: dict[str, Callable[[], Cloud]] = {
    "box": box, "cone": cone, "cylinder": cylinder, "lamp": lamp, "sphere": sphere, "torus": torus,
}  # fmt: skip
PARTS = ("body", "base", "shade")
"""Names of the part numbers, over all shapes."""


def varied(shape: Cloud, number: int) -> Cloud:
    """Return a shape with other proportions and turned about the vertical axis: a function of its number.

    Example:
        >>> bool((varied(box(), 3).points == varied(box(), 3).points).all())
        True
    """
    draws = BatchRng(0, 0, np.array([number]))
    points = shape.points * draws.uniform("proportions", 0.6, 1.4, count=3)[0]
    turn = draws.uniform("turn", 0, 2 * np.pi)[0]
    cos, sin = np.cos(turn), np.sin(turn)
    return Cloud(points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]), shape.faces, shape.parts)
