"""PSNR and SSIM against loops over their formulas, and known values."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.tasks.restore.quality import psnr, ssim, to_luma


def pair(height: int = 14, width: int = 13, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 256, (height, width, channels)).astype(np.float64)
    return truth + draw.normal(0, 12, truth.shape), truth


def ssim_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, window by window, for one channel."""
    window = np.array([[np.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)])
    window /= window.sum()
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            c1, c2 = 6.5025, 58.5225
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("border", [0, 1])
def test_psnr_is_its_formula_after_rounding_and_cropping(border: int) -> None:
    image, truth = pair()
    total, count = 0.0, 0
    for i in range(border, 14 - border):
        for j in range(border, 13 - border):
            for c in range(3):
                total += (min(max(round(image[i, j, c]), 0), 255) - truth[i, j, c]) ** 2
                count += 1
    assert psnr(image, truth, border) == pytest.approx(10 * np.log10(255**2 / (total / count)))


@pytest.mark.parametrize("luma", [False, True])
def test_ssim_is_its_formula(luma: bool) -> None:
    image, truth = pair()
    rounded = np.clip(np.round(image), 0, 255)
    if luma:
        slow = ssim_by_loops(to_luma(rounded), to_luma(truth))
    else:
        slow = float(np.mean([ssim_by_loops(rounded[..., c], truth[..., c]) for c in range(3)]))
    assert ssim(image, truth, luma=luma) == pytest.approx(slow, abs=1e-9)


def test_known_values() -> None:
    grey = np.full((20, 20, 1), 100.0)
    assert psnr(grey, grey) == float("inf") and ssim(grey, grey) == 1.0
    assert psnr(grey + 1, grey) == pytest.approx(48.1308, abs=1e-4)
    assert psnr(grey + 0.4, grey) == float("inf")  # rounded to 8 bits
    assert np.isnan(ssim(grey[:5, :5], grey[:5, :5]))


def test_luma_is_that_of_matlab() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]]])
    np.testing.assert_allclose(to_luma(colours)[0], [81.481, 144.553, 40.966, 125.929], atol=1e-3)


def test_incomparable_images_are_refused() -> None:
    with pytest.raises(DataError, match="must be equal"):
        psnr(np.zeros((2, 3, 1)), np.zeros((3, 2, 1)))
    with pytest.raises(DataError, match="nothing inside"):
        psnr(np.zeros((4, 4, 1)), np.zeros((4, 4, 1)), border=2)
