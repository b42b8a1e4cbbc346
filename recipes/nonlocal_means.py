"""Non-local means on noisy grey images, the reference of `recipes/denoise_25.yaml`.

    python recipes/nonlocal_means.py data/Set12   # 28.15 dB, SSIM 0.7843

Buades, Coll and Morel, "A non-local algorithm for image denoising", 2005: each pixel is the mean of the pixels in a
21 x 21 window, weighted by exp(-max(d² - 2 sigma², 0) / h²), d² the mean squared difference of the 5 x 5 patches around
both, h = 0.4 sigma (the setting of the authors' IPOL article, 2011, for sigma 15 to 30). The noise is that of
`vitrail evaluate`.
"""

import sys

import numpy as np

from vitrail.data.degradations import parse
from vitrail.data.restoration_set import open_restoration
from vitrail.tasks.restore.patches import whole_pair
from vitrail.tasks.restore.quality import psnr, ssim

SEARCH, PATCH, STRENGTH = 10, 2, 0.4


def box_mean(x: np.ndarray, half: int) -> np.ndarray:
    """Return the mean over `(2 half + 1)²` pixels; edges are mirrored."""
    padded = np.pad(x, half, mode="symmetric")
    total = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = 2 * half + 1
    return (total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]) / side**2


def nonlocal_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Return a denoised image `(Y, X)`."""
    padded = np.pad(noisy, SEARCH, mode="symmetric")
    height, width = noisy.shape
    total, weights, largest = np.zeros_like(noisy), np.zeros_like(noisy), np.zeros_like(noisy)
    for dy in range(2 * SEARCH + 1):
        for dx in range(2 * SEARCH + 1):
            if dy == dx == SEARCH:
                continue
            other = padded[dy : dy + height, dx : dx + width]
            distance = box_mean((noisy - other) ** 2, PATCH)
            weight = np.exp(-np.maximum(distance - 2 * sigma**2, 0) / (STRENGTH * sigma) ** 2)
            total, weights, largest = total + weight * other, weights + weight, np.maximum(largest, weight)
    return (total + largest * noisy) / (weights + largest)  # a pixel counts as much as its best match


def main() -> None:
    """Denoise the images of a folder at sigma 25, and print their figures."""
    images, noise = open_restoration(sys.argv[1], 0.0).require("train"), parse("noise:25", 1)
    figures = []
    for number, name in enumerate(images.ids):
        low, high = whole_pair(images, number, noise, 1)
        found = nonlocal_means(low[..., 0].astype(np.float64), 25.0)[..., None]
        figures.append((psnr(found, high), ssim(found, high)))
        print(f"{name:12} {figures[-1][0]:.2f} dB  {figures[-1][1]:.4f}", flush=True)
    print(f"mean         {np.mean(figures, 0)[0]:.2f} dB  {np.mean(figures, 0)[1]:.4f}")


if __name__ == "__main__":
    main()
