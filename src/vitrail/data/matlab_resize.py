"""Bicubic resize as MATLAB's `imresize`, the definition of low resolution in super-resolution.

    y(i) = sum_j w(i, j) x(j) / sum_j w(i, j),   w(i, j) = k(s (u - j))
    u = i / scale + (1 - 1 / scale) / 2,   s = min(scale, 1)

`k` is the cubic kernel with a = -0.5 (Keys, "Cubic convolution interpolation for digital image processing", 1981,
equation 15). Downscaling widens the kernel by 1 / scale (antialiasing), edges are mirrored, axes are resized one after
the other. OpenCV (a = -0.75, no antialiasing) and Pillow (other edges) give images on which published PSNR figures
cannot be reproduced.
"""

from functools import lru_cache
from math import ceil

import numpy as np

from vitrail.errors import VitrailError


def cubic(x: np.ndarray) -> np.ndarray:
    """Return the cubic convolution kernel with a = -0.5.

    Example:
        >>> cubic(np.array([0.0, 0.5, 1.0, 1.5, 2.0])).tolist()
        [1.0, 0.5625, 0.0, -0.0625, 0.0]
    """
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return inner * (x <= 1) + outer * ((x > 1) & (x <= 2))


@lru_cache(maxsize=64)
def _matrix(length: int, out: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and source positions of one axis, both `(out, taps)`."""
    width = 4.0 / min(scale, 1.0)
    taps = ceil(width) + 2
    centre = (np.arange(1, out + 1)) / scale + 0.5 * (1 - 1 / scale)  # MATLAB counts from 1
    left = np.floor(centre - width / 2)
    place = left[:, None] + np.arange(taps)
    shrink = min(scale, 1.0)
    weights = cubic((centre[:, None] - place) * shrink)
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    place = mirrored[(place.astype(np.int64) - 1) % (2 * length)]
    used = np.flatnonzero(np.any(weights != 0, axis=0))
    return weights[:, used], place[:, used]


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resize an image by a factor.

    Args:
        image: `(Y, X)` or `(Y, X, C)` of uint8, or of floats.
        scale: factor of both sides; the output is rounded up to whole pixels, as in MATLAB.

    Returns:
        An image of the same type. uint8 is rounded after each axis, as MATLAB rounds it.

    Raises:
        VitrailError: the factor is not positive.

    Example:
        >>> imresize(np.eye(4), 0.5).round(3).tolist()
        [[0.47, 0.03], [0.03, 0.47]]
        >>> imresize(np.full((5, 3), 7, "uint8"), 0.5).tolist()
        [[7, 7], [7, 7], [7, 7]]
    """
    if not scale > 0:
        raise VitrailError(f"An image is resized by a factor above 0, got {scale}.")
    for axis in (0, 1):
        image = resize_axis(image, axis, ceil(round(image.shape[axis] * scale, 6)), scale)
    return image


def resize_axis(image: np.ndarray, axis: int, out: int, scale: float) -> np.ndarray:
    """Resize one axis to `out` pixels by a factor.

    Args:
        image: `(Y, X)` or `(Y, X, C)`.
        axis: 0 or 1.
        out: length of the result.
        scale: distance of two source pixels in the result.

    Example:
        >>> resize_axis(np.ones((4, 3)), axis=0, out=2, scale=0.5).shape
        (2, 3)
    """
    weights, place = _matrix(image.shape[axis], out, float(scale))
    kind = image.dtype
    source = np.moveaxis(image, axis, 0)
    total = np.zeros((out, *source.shape[1:]), np.float32 if kind == np.float32 else np.float64)
    for tap in range(weights.shape[1]):
        weight = weights[:, tap].astype(total.dtype)
        total += weight.reshape(-1, *[1] * (source.ndim - 1)) * source[place[:, tap]]
    if kind == np.uint8:
        total = np.clip(np.floor(total + 0.5), 0, 255).astype(np.uint8)
    return np.moveaxis(total, 0, axis)
