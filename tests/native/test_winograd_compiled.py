"""Winograd's 3 x 3 convolutions and those of enlarged maps against PyTorch in fp64."""

import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from vitrail.native.build import refusal
from vitrail.native.winograd import FILTER_TRANSFORMS, add_upsampled, convolve_3x3, pack_3x3

pytestmark = pytest.mark.skipif(refusal(torch.float32, "winograd") is not None, reason="no C++ compiler here")


def problem(height: int, width: int, channels: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight = torch.randn(outputs, channels, 3, 3) / (9 * channels) ** 0.5
    return torch.randn(2, height, width, channels), weight, torch.randn(outputs)


KINDS = {"tiles of 4": (4, torch.float32, 3e-5), "tiles of 2": (2, torch.float32, 5e-6)}
if refusal(torch.bfloat16, "bottleneck") is None:
    KINDS["tiles of 2 in bf16"] = (2, torch.bfloat16, 4e-2)
"""Tile, dtype, and the largest error at unit variance of the outputs."""
SIZES = [(1, 1, 2, 1), (1, 9, 4, 5), (4, 4, 16, 64), (5, 8, 20, 70), (13, 10, 40, 17)]


def direct(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return conv2d(x.double().permute(0, 3, 1, 2), weight.double(), bias.double(), padding=1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_winograd_equals_the_direct_convolution(sizes: tuple[int, int, int, int], kind: str) -> None:
    tile, dtype, error = KINDS[kind]
    x, weight, bias = problem(*sizes)
    x = x.to(dtype)
    got = convolve_3x3(x, pack_3x3(weight, bias, tile, dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), direct(x, weight, bias), rtol=0, atol=error)


@pytest.mark.parametrize("tile", FILTER_TRANSFORMS)
def test_one_dimension_in_exact_numbers(tile: int) -> None:
    """G is the evaluation of the taps' polynomial at m + 1 points and at infinity, up to a factor."""
    points = {2: [0, 1, -1], 4: [0, 1, -1, 2, -2]}[tile]
    powers = torch.tensor([[p**k for k in range(3)] for p in points], dtype=torch.float64)
    transform = torch.tensor(FILTER_TRANSFORMS[tile], dtype=torch.float64)
    factors = transform[:-1, 0]
    torch.testing.assert_close(transform[:-1], factors[:, None] * powers)
    assert transform[-1].tolist() == [0, 0, 1]


def test_rounding_of_tiles_of_2_follows_the_variances() -> None:
    """V and U are rounded with relative variance e each, so the error is 2 e 25 / 9; that of rounded filters is e."""
    if "tiles of 2 in bf16" not in KINDS:
        pytest.skip("no bf16 here")
    x, weight, bias = problem(32, 32, 64, 64)
    x = x.bfloat16().float()
    want = direct(x, weight, bias)
    rounded = direct(x, weight.bfloat16(), bias)  # rounds the filters alone: variance e
    got = convolve_3x3(x.bfloat16(), pack_3x3(weight, bias, 2, torch.bfloat16)).double()
    stored = want.to(torch.bfloat16).double()
    excess = (got - want).var() - (stored - want).var()
    assert 0.7 < excess / ((rounded - want).var() * 2 * 25 / 9) < 1.3


def test_rows_of_a_batch_and_of_threads_are_equal() -> None:
    x, weight, bias = problem(9, 11, 48, 144)
    packed = pack_3x3(weight, bias, 2)
    whole = convolve_3x3(x, packed)
    assert torch.equal(torch.cat([convolve_3x3(each, packed) for each in x.split(1)]), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        assert torch.equal(convolve_3x3(x, packed), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_skip_connection_comes_before_the_rectifier(slope: float) -> None:
    x, weight, bias = problem(6, 7, 8, 24)
    add = torch.randn(2, 6, 7, 24)
    want = direct(x, weight, bias) + add.double()
    got = convolve_3x3(x, pack_3x3(weight, bias), add, slope)
    torch.testing.assert_close(got.double(), torch.maximum(want, slope * want), rtol=0, atol=2e-5)


def test_maps_in_the_residual_dtype_saturate() -> None:
    if refusal(torch.bfloat16) is not None:
        pytest.skip("no bf16 here")
    x, weight, bias = problem(6, 7, 8, 24)
    got = convolve_3x3(x.half(), pack_3x3(weight, bias))
    assert got.dtype == torch.float16
    torch.testing.assert_close(got.double(), direct(x.half(), weight, bias), rtol=2e-3, atol=2e-3)
    assert convolve_3x3(x.half(), pack_3x3(weight, bias + 1e6)).max() == 65504


def test_nan_stays_in_the_tiles_that_read_it() -> None:
    x, weight, bias = problem(12, 12, 4, 4)
    x[0, 0, 0, 0] = torch.nan
    got = convolve_3x3(x, pack_3x3(weight, bias), slope=0.0)
    assert got[0, 0, 0].isnan().all() and got[1].isfinite().all() and got[0, 4:, 4:].isfinite().all()


@pytest.mark.parametrize("small", [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("large", [(1, 7), (4, 3), (9, 16)])
def test_products_of_the_small_map_are_enlarged(small: tuple[int, int], large: tuple[int, int]) -> None:
    x, weight, _ = problem(*small, 6, 20)
    products = torch.einsum("bhwc,ocyx->bhwyxo", x, weight).flatten(3, 4).contiguous()
    enlarged = interpolate(x.permute(0, 3, 1, 2), size=large, mode="bilinear").permute(0, 2, 3, 1)
    want = direct(enlarged, weight, torch.zeros(20))
    y = add_upsampled(products, torch.full((2, *large, 20), torch.nan), add=False)
    torch.testing.assert_close(y.double(), want, rtol=0, atol=1e-5)
    torch.testing.assert_close(add_upsampled(products, y, add=True).double(), 2 * want, rtol=0, atol=2e-5)
