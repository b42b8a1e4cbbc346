"""Degradations are functions of image, seed and step; their formulas and refusals."""

import numpy as np
import pytest

from vitrail.data.blur_kernels import filter_image, gaussian_kernel, generalised_kernel, plateau_kernel, sinc_kernel
from vitrail.data.degradations import parse
from vitrail.data.matlab_resize import imresize
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError

ALL = [("bicubic", 2), ("noise:25", 1), ("noise:0-50", 1), ("blur:0.2-2", 1), ("jpeg:10-40", 1), ("real-esrgan", 4)]
ALL += [("blur:0.5-1+bicubic+noise:0-10+jpeg:60-95", 2)]


def image(side: int = 48, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (side, side, channels)).astype(np.float32)


def rng(step: int = 0, sample: int = 7) -> BatchRng:
    return BatchRng(3, step, np.array([sample]))


@pytest.mark.parametrize(("text", "scale"), ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_function_of_seed_step_and_sample(text: str, scale: int, channels: int) -> None:
    degrade, x = parse(text, scale), image(channels=channels)
    kept = x.copy()
    first = degrade(x, rng())
    assert first.shape == (48 // scale, 48 // scale, channels) and first.dtype == np.float32
    assert np.isfinite(first).all() and np.array_equal(x, kept)
    assert np.array_equal(first, degrade(x, rng()))
    if text != "bicubic":
        assert not np.array_equal(first, degrade(x, rng(step=1)))


def test_noise_has_its_standard_deviation_and_is_not_rounded() -> None:
    noisy = parse("noise:25", 1)(np.full((200, 200, 1), 128, np.float32), rng())
    assert noisy.std() == pytest.approx(25, rel=0.02) and noisy.mean() == pytest.approx(128, abs=0.5)
    assert noisy.max() % 1 != 0


def test_two_noises_of_a_chain_are_independent() -> None:
    noisy = parse("noise:10+noise:10", 1)(np.zeros((200, 200, 1), np.float32), rng())
    assert noisy.std() == pytest.approx(200**0.5, rel=0.03)


def test_bicubic_is_matlabs() -> None:
    x = np.round(image())
    assert np.array_equal(parse("bicubic", 2)(x, rng()), imresize(x.astype(np.uint8), 0.5).astype(np.float32))


def test_kernels_sum_to_one_and_blur_is_a_sum_of_shifts() -> None:
    kernels = [gaussian_kernel(7, 1.2, 0.6, 0.4), generalised_kernel(7, 1.2, None, 0.0, 0.7), sinc_kernel(7, 1.5)]
    kernels.append(plateau_kernel(7, 2.0, 1.0, 1.0, 1.5))
    assert all(each.sum() == pytest.approx(1) for each in kernels)
    x, k = image(9), kernels[0]
    padded = np.pad(x, ((3, 3), (3, 3), (0, 0)), mode="symmetric")
    slow = sum(k[i, j] * padded[i : i + 9, j : j + 9] for i in range(7) for j in range(7))
    np.testing.assert_allclose(filter_image(x, k), slow, rtol=1e-5)


@pytest.mark.parametrize("text", ["sepia", "noise", "noise:x", "noise:50-10", "jpeg:0", "bicubic:3", "noise:25"])
def test_unknown_degradations_are_refused(text: str) -> None:
    with pytest.raises(VitrailError):
        parse(text, scale=2)
