"""PSNR and SSIM as papers on restoration compute them.

Images are 8-bit, rounded before anything is measured; super-resolution crops a border of `scale` pixels and, with
colour, measures luma in MATLAB's range 16-235. Full-range luma, another border or unrounded floats move a figure by
tenths of a decibel.
"""

import numpy as np

from vitrail.errors import DataError

PEAK = 255.0
_LUMA = np.array([65.481, 128.553, 24.966])


def to_luma(image: np.ndarray) -> np.ndarray:
    """Return the luma of an RGB image, `Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255`, in 16..235.

    ITU-R BT.601, the Y of MATLAB's `rgb2ycbcr`, not rounded.

    Args:
        image: `(Y, X, 3)` in 0..255.

    Example:
        >>> to_luma(np.array([[[0, 0, 0], [255, 255, 255]]])).round(6).tolist()
        [[16.0, 235.0]]
    """
    return np.asarray(image, np.float64) @ _LUMA / PEAK + 16.0


def psnr(image: np.ndarray, truth: np.ndarray, border: int = 0, luma: bool = False) -> float:
    """Return the peak signal-to-noise ratio in decibels, `10 log10(255² / mean((x - y)²))`.

    Args:
        image: restored image, `(Y, X)` or `(Y, X, C)`, in 0..255; floats are rounded.
        truth: the true image, of the same shape.
        border: pixels left out at each edge.
        luma: whether to measure the luma of colour images.

    Returns:
        Infinity for equal images.

    Raises:
        DataError: the shapes differ, or nothing is left inside the border.

    Example:
        >>> round(psnr(np.full((4, 4), 10.0), np.full((4, 4), 20)), 2)
        28.13
    """
    x, y = prepared(image, truth, border, luma)
    error = np.mean((x - y) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(image: np.ndarray, truth: np.ndarray, border: int = 0, luma: bool = False) -> float:
    """Return the structural similarity, a mean over the windows inside the image and over the channels.

    SSIM = (2 mx my + c1)(2 sxy + c2) / ((mx² + my² + c1)(sx² + sy² + c2)),   c1 = (0.01 · 255)², c2 = (0.03 · 255)²

    with an 11 x 11 Gaussian window of sigma 1.5. "Image Quality Assessment: From Error Visibility to Structural
    Similarity", Wang et al., 2004; the authors' MATLAB code, without its downsampling.

    Args:
        image: as for `psnr`.
        truth: as for `psnr`.
        border: as for `psnr`.
        luma: as for `psnr`.

    Returns:
        NaN if the image is smaller than the window.

    Example:
        >>> x = np.arange(400.0).reshape(20, 20) % 256
        >>> ssim(x, x)
        1.0
    """
    x, y = prepared(image, truth, border, luma)
    if min(x.shape[:2]) < _WINDOW:
        return float("nan")
    planes = [(x, y)] if x.ndim == 2 else [(x[..., c], y[..., c]) for c in range(x.shape[2])]
    return float(np.mean([_ssim_plane(*each) for each in planes]))


def prepared(image: np.ndarray, truth: np.ndarray, border: int, luma: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return both images rounded to 8 bits, cropped, in the measured channels.

    Example:
        >>> image = np.full((6, 6, 3), 10.4)
        >>> one, _ = prepared(image, image, border=1, luma=False)
        >>> one.shape, float(one.max())
        ((4, 4, 3), 10.0)
    """
    if image.shape != truth.shape:
        raise DataError(
            f"The restored image has the shape {image.shape} and the true one {truth.shape}; they must be equal."
        )
    x, y = (np.clip(np.round(np.asarray(each, np.float64)), 0, PEAK) for each in (image, truth))
    if border:
        x, y = (each[border:-border, border:-border] for each in (x, y))
    if x.size == 0:
        raise DataError(
            f"An image of {image.shape[1]} x {image.shape[0]} pixels has nothing inside a border of {border}."
        )
    if luma and x.ndim == 3 and x.shape[2] == 3:
        x, y = to_luma(x), to_luma(y)
    return x, y


_WINDOW = 11


def _gaussian() -> np.ndarray:
    taps = np.exp(-((np.arange(_WINDOW) - _WINDOW // 2) ** 2) / (2 * 1.5**2))
    return taps / taps.sum()


def _smooth(x: np.ndarray) -> np.ndarray:
    """Filter with the separable window, where it fits into the image."""
    taps = _gaussian()
    rows = np.asarray(sum(tap * x[i : x.shape[0] - _WINDOW + 1 + i] for i, tap in enumerate(taps)))
    return np.asarray(sum(tap * rows[:, i : x.shape[1] - _WINDOW + 1 + i] for i, tap in enumerate(taps)))


def _ssim_plane(x: np.ndarray, y: np.ndarray) -> float:
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mx, my = _smooth(x), _smooth(y)
    sxx, syy, sxy = _smooth(x * x) - mx * mx, _smooth(y * y) - my * my, _smooth(x * y) - mx * my
    similarity = ((2 * mx * my + c1) * (2 * sxy + c2)) / ((mx * mx + my * my + c1) * (sxx + syy + c2))
    return float(similarity.mean())
