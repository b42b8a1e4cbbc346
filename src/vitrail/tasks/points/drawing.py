"""A cloud as an image: seen from above the horizon, nearer points darker, picks of SortNets coloured."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vitrail.tasks.classes.result import PAPER

COLORS = ("#c2410c", "#15803d", "#7e22ce", "#b45309", "#0e7490", "#be123c", "#4d7c0f", "#1d4ed8")
"""Colours of the SortNets, in turn."""
_TURN, _TILT = 0.6, 0.45  # radians of the view
_FAR, _NEAR = 205, 40  # grey levels


def view(points: np.ndarray) -> np.ndarray:
    """Return right, up and towards the viewer for points `(N, 3)` with z up.

    Example:
        >>> view(np.zeros((4, 3))).shape
        (4, 3)
    """
    cos, sin = np.cos(_TURN), np.sin(_TURN)
    x, y, z = points.T
    right, ahead = cos * x - sin * y, sin * x + cos * y
    up, near = np.cos(_TILT) * z + np.sin(_TILT) * ahead, np.sin(_TILT) * z - np.cos(_TILT) * ahead
    return np.stack([right, up, near], axis=1)


def draw_points(points: np.ndarray, picks: Sequence[Sequence[int]] = (), side: int = 480) -> Image.Image:
    """Draw points of the unit sphere.

    Args:
        points: `(N, 3)`.
        picks: indices of the points that each SortNet picked.
        side: of the image, in pixels.

    Example:
        >>> draw_points(np.zeros((1, 3)), side=64).size
        (64, 64)
    """
    image = Image.new("RGB", (side, side), PAPER)
    pen, seen = ImageDraw.Draw(image), view(np.asarray(points, dtype=np.float64).reshape(-1, 3))
    places = np.stack([side / 2 + 0.46 * side * seen[:, 0], side / 2 - 0.46 * side * seen[:, 1]], axis=1)
    size = max(1.0, side / 240)
    for number in np.argsort(seen[:, 2], kind="stable"):
        grey = int(_FAR + (_NEAR - _FAR) * (seen[number, 2] + 1) / 2)
        x, y = places[number]
        pen.ellipse((x - size, y - size, x + size, y + size), fill=(grey, grey, grey))
    for net, chosen in enumerate(picks):
        for number in chosen:
            x, y = places[number]
            pen.ellipse(
                (x - 2 * size, y - 2 * size, x + 2 * size, y + 2 * size), outline=COLORS[net % len(COLORS)], width=2
            )
    return image
