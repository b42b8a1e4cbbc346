"""Confusion matrix plots: shaded cells for few classes, a heatmap image for many."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from vitrail.tasks.data_url import encode

RIGHT, WRONG, PAPER = np.array([36, 89, 169.0]), np.array([190, 44, 66.0]), np.array([255, 255, 255.0])


class Cell(NamedTuple):
    """Cell of a confusion matrix.

    Args:
        count: number of images.
        share: fraction of the images of its true class.
        shade: 0 (empty) to 100, strength of its colour.
        right: True on the diagonal.
    """

    count: int
    share: float
    shade: int
    right: bool


def confusion_cells(matrix: np.ndarray) -> list[list[Cell]]:
    """Return the cells row by row, with shades that keep rare errors visible next to many hits.

    Example:
        >>> [[cell.count for cell in row] for row in confusion_cells(np.array([[2, 0], [1, 1]]))]
        [[2, 0], [1, 1]]
    """
    share, shade = _shares(matrix)
    return [
        [Cell(int(n), float(share[i, j]), round(100 * float(shade[i, j])), i == j) for j, n in enumerate(row)]
        for i, row in enumerate(matrix)
    ]


def confusion_figure(matrix: np.ndarray, side: int = 640) -> str:
    """Return the matrix as a heatmap image of at most `side` pixels, a `data:` URL; hits blue, errors red.

    A matrix with more classes than pixels is max-pooled in blocks, so that no error is lost.
    """
    _, shade = _shares(matrix)
    right = np.eye(len(matrix), dtype=bool)
    block = -(-len(matrix) // side)
    hits, misses = (_strongest(np.where(where, shade, 0), block) for where in (right, ~right))
    light = np.maximum(hits, misses)[..., None]
    ink = np.where((hits >= misses)[..., None], RIGHT, WRONG)
    pixels = (PAPER + (ink - PAPER) * light).round().astype(np.uint8)
    scale = max(1, side // len(pixels))
    image = Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    return encode(image, exact=True)


def _shares(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return share, np.sqrt(share)


def _strongest(values: np.ndarray, block: int) -> np.ndarray:
    """Max-pool with a kernel of `block` by `block`."""
    pad = -len(values) % block
    values = np.pad(values, ((0, pad), (0, pad)))
    side = len(values) // block
    return values.reshape(side, block, side, block).max(axis=(1, 3))
