"""MATLAB's bicubic resize: a loop over its formula, the published low-resolution files, and published PSNR."""

from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.data.matlab_resize import imresize, resize_axis
from vitrail.errors import VitrailError
from vitrail.tasks.restore.quality import psnr, ssim, to_luma


def kernel(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def by_loops(row: list[float], scale: float) -> list[float]:
    """One axis, tap by tap; positions count from 0, pixel centres at halves."""
    shrink, n, result = min(scale, 1.0), len(row), []
    for i in range(ceil(n * scale)):
        centre = (i + 0.5) / scale - 0.5
        reach = ceil(2 / shrink)
        total = weight_sum = 0.0
        for j in range(floor(centre) - reach, floor(centre) + reach + 2):
            weight = kernel((centre - j) * shrink)
            place = j % (2 * n)
            total += weight * row[place if place < n else 2 * n - 1 - place]
            weight_sum += weight
        result.append(total / weight_sum)
    return result


@pytest.mark.parametrize("scale", [0.5, 1 / 3, 0.25, 2.0, 3.0, 0.7])
@pytest.mark.parametrize("length", [1, 2, 5, 13])
def test_an_axis_is_its_formula(length: int, scale: float) -> None:
    row = np.random.default_rng(length).normal(size=length)
    ours = resize_axis(row[:, None], 0, ceil(length * scale), scale)[:, 0]
    np.testing.assert_allclose(ours, by_loops(list(row), scale), atol=1e-12)


def test_constant_images_stay_and_odd_sides_round_up() -> None:
    assert imresize(np.full((7, 5, 3), 200, np.uint8), 0.5).shape == (4, 3, 3)
    assert (imresize(np.full((7, 5, 3), 200, np.uint8), 1 / 3) == 200).all()
    with pytest.raises(VitrailError, match="factor above 0"):
        imresize(np.zeros((2, 2)), 0)


def set5(shared: Path, scale: int) -> list[tuple[np.ndarray, np.ndarray]]:
    root = shared / "data" / "restoration" / "Set5"
    pairs = []
    for file in sorted((root / "HR").glob("*.png")):
        high, low = np.asarray(Image.open(file)), root / "LR_bicubic" / f"X{scale}" / f"{file.stem}x{scale}.png"
        high = high[: high.shape[0] // scale * scale, : high.shape[1] // scale * scale]
        pairs.append((high, np.asarray(Image.open(low))))
    return pairs


@pytest.mark.shared
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_published_files_come_out_to_the_bit(shared: Path, scale: int) -> None:
    for high, low in set5(shared, scale):
        assert np.array_equal(imresize(high, 1 / scale), low)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("scale", "published", "similarity"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]
)
def test_bicubic_on_set5_has_its_published_figures(
    shared: Path, scale: int, published: float, similarity: float
) -> None:
    """Dong et al. 2014 and all tables since: luma in 8 bits is downscaled and enlarged in floats, then rounded."""
    figures = []
    for high, _ in set5(shared, scale):
        luma = np.round(to_luma(high)).astype(np.uint8)
        again = imresize(imresize(luma.astype(np.float64), 1 / scale), scale)
        figures.append((psnr(again, luma, scale), ssim(again, luma, scale)))
    assert np.mean(figures, axis=0)[0] == pytest.approx(published, abs=0.01)
    assert np.mean(figures, axis=0)[1] == pytest.approx(similarity, abs=0.0015)
