"""The compiled branches of a PoolFormer block against their formulas in fp64."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, gelu

from closeness import CLOSE, drawn, off, steps_off, with_threads
from vitrail.grid import Grid
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import pack_linear
from vitrail.native.norms import lanes
from vitrail.native.pooling import image_mlp, pool


def standardised(x: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.double()
    mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, correction=0)
    return (x - mean) / (var + eps).sqrt()


def pooled(x: torch.Tensor, grid: Grid, size: int) -> torch.Tensor:
    cells = x.unflatten(1, (grid.h, grid.w)).permute(0, 3, 1, 2)
    means = avg_pool2d(cells, size, stride=1, padding=size // 2, count_include_pad=False)
    return means.permute(0, 2, 3, 1).flatten(1, 2)


@pytest.mark.parametrize("channels", [1, 5, 16, 40, 64])
@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(1, 7), Grid(5, 1), Grid(4, 6), Grid(13, 9)], ids=str)
def test_pooling_after_a_norm_of_images(grid, channels, dtype):
    x = drawn(3, grid.tokens, channels, dtype=RESIDUAL[dtype]) * 2 + 1
    weight, shift, gamma = torch.randn(3, channels).unbind(0)
    for size in (3, 5):
        z = standardised(x, 1e-5) * weight + shift
        want = x.double() + gamma * (pooled(z, grid, size) - z)
        assert steps_off(pool(x, grid, size, lanes(weight * gamma), 1e-5), want) < 1


def test_a_map_far_from_zero_keeps_its_digits(dtype):
    grid, far = Grid(30, 30), {torch.float32: 1000.0, torch.bfloat16: 16.0}[dtype]
    x = (torch.randn(2, 900, 8) + far).to(RESIDUAL[dtype])
    move = pool(x, grid, 3, lanes(torch.ones(8)), 0.0).double() - x.double()
    z = standardised(x, 0.0)
    want = pooled(z, grid, 3) - z
    # the addend is as exact as the last digit of the sum
    assert (move - want).abs().max() < {torch.float32: 2e-4, torch.bfloat16: 0.016}[dtype]


@pytest.mark.parametrize("tokens", [1, 6, 49, 130])
def test_an_mlp_after_a_norm_of_images(tokens, dtype):
    x = (
        drawn(3, tokens, 24, dtype=RESIDUAL[dtype]) * torch.tensor([1.0, 3.0, 0.5]).to(RESIDUAL[dtype])[:, None, None]
        + 0.5
    )
    first, second = drawn(70, 24, dtype=dtype).float() / 5, drawn(24, 70, dtype=dtype).float() / 8
    b1, b2 = torch.randn(70), torch.randn(24)
    hidden = gelu(standardised(x, 1e-5) @ first.double().T + b1)
    want = x.double() + hidden @ second.double().T + b2
    got = image_mlp(x, pack_linear(first, b1, dtype), pack_linear(second, b2, dtype), 1e-5)
    assert off(got, want) < 2 * CLOSE[dtype]


def test_threads_do_not_change_the_output(dtype):
    x, grid = drawn(3, 12 * 11, 64, dtype=RESIDUAL[dtype]), Grid(12, 11)
    packed = pack_linear(torch.randn(96, 64), None, dtype), pack_linear(torch.randn(64, 96), None, dtype)

    def run():
        return pool(x, grid, 3, lanes(torch.ones(64)), 1e-5), image_mlp(x, *packed, 1e-5)

    assert all(torch.equal(a, b) for a, b in zip(run(), with_threads(run), strict=True))
