"""Blur kernels of blind super-resolution, and filtering with mirrored edges.

"Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", Wang et al., 2021, section 3:
Gaussian, generalised Gaussian and plateau-shaped kernels, isotropic or not, and sinc filters that leave ringing.
"""

import numpy as np
import torch
from torch.nn.functional import conv2d


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float | None = None, angle: float = 0.0) -> np.ndarray:
    """Return a Gaussian kernel `(size, size)` that sums to one.

    Args:
        size: odd side.
        sigma_x: standard deviation along the first axis of the ellipse.
        sigma_y: along the second; the same by default.
        angle: rotation in radians.

    Example:
        >>> gaussian_kernel(3, 1e-3).round(3).tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return _normalised(np.exp(-0.5 * _quadratic(size, sigma_x, sigma_y, angle)))


def generalised_kernel(size: int, sigma_x: float, sigma_y: float | None, angle: float, beta: float) -> np.ndarray:
    """Return a generalised Gaussian kernel, `exp(-q^beta / 2)`: flatter or more pointed than a Gaussian.

    Example:
        >>> kernel = generalised_kernel(7, 1.5, None, 0.0, 0.5)
        >>> kernel.shape, round(float(kernel.sum()), 6), bool(kernel[3, 3] == kernel.max())
        ((7, 7), 1.0, True)
    """
    return _normalised(np.exp(-0.5 * _quadratic(size, sigma_x, sigma_y, angle) ** beta))


def plateau_kernel(size: int, sigma_x: float, sigma_y: float | None, angle: float, beta: float) -> np.ndarray:
    """Return a plateau-shaped kernel, `1 / (1 + q^beta)`.

    Example:
        >>> kernel = plateau_kernel(7, 1.5, None, 0.0, 2.0)
        >>> kernel.shape, round(float(kernel.sum()), 6)
        ((7, 7), 1.0)
    """
    return _normalised(1 / (1 + _quadratic(size, sigma_x, sigma_y, angle) ** beta))


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """Return a circular low-pass filter, `w J1(w r) / (2 pi r)`, which leaves ringing.

    Args:
        size: odd side.
        cutoff: angular frequency w in radians.

    Example:
        >>> round(float(sinc_kernel(7, 1.5).sum()), 3)
        1.0
    """
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(y, x)
    radius[size // 2, size // 2] = 1.0
    kernel = cutoff * _bessel_j1(cutoff * radius) / (2 * np.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    return _normalised(kernel)


def _bessel_j1(x: np.ndarray) -> np.ndarray:
    return torch.special.bessel_j1(torch.from_numpy(x)).numpy()


def _quadratic(size: int, sigma_x: float, sigma_y: float | None, angle: float) -> np.ndarray:
    """Return the quadratic form of the inverse covariance at each position."""
    sigma_y = sigma_x if sigma_y is None else sigma_y
    y, x = np.mgrid[:size, :size] - size // 2
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _normalised(kernel: np.ndarray) -> np.ndarray:
    return kernel / kernel.sum()


def filter_image(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter each channel of `(Y, X, C)` with a square kernel; edges are mirrored.

    Example:
        >>> filter_image(np.ones((2, 3, 1), np.float32), gaussian_kernel(5, 1.0)).round(4).ravel().tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    half = kernel.shape[0] // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="symmetric")
    planes = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[:, None]  # (Y, X, C) -> (C, 1, Y, X)
    weight = torch.from_numpy(kernel.astype(np.float32))[None, None]
    return conv2d(planes.float(), weight)[:, 0].permute(1, 2, 0).numpy()
