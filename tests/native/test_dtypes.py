"""The residual dtype between blocks: finer than the compute dtype, never infinite, NaN only from NaN."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from closeness import CLOSE, off
from vitrail.grid import Grid
from vitrail.native.attention import TokenGroups, attention_branch, cosine_branch
from vitrail.native.build import refusal
from vitrail.native.dtypes import PRODUCTS, RESIDUAL
from vitrail.native.gemm import ADD, PLAIN, linear, mlp, pack_linear, post_norm_mlp
from vitrail.native.int8 import int8_refusal, pack_int8, pack_int8_normed
from vitrail.native.neighborhood import meeting, neighborhood_branch, run_bias
from vitrail.native.norms import LaneNorm, lanes
from vitrail.native.patches import embed_patches
from vitrail.native.pooling import image_mlp, pool
from vitrail.native.token_mlp import TokenLayer, token_mlp

GRID, WIDTH = Grid(5, 7), 36  # the last numbers of a row fill no vector
Branch = Callable[[Tensor], Tensor]


class Ends(NamedTuple):
    """The layer that a branch ends with: weights are drawn and divided, or a bias alone."""

    scale: float
    bias: float

    def layer(self, inputs: int, outputs: int = WIDTH) -> tuple[Tensor, Tensor]:
        return torch.randn(outputs, inputs) * self.scale, torch.full((outputs,), self.bias)


def attention(ends: Ends, dtype: torch.dtype) -> Branch:
    layers = pack_linear(torch.randn(3 * WIDTH, WIDTH), None, dtype), pack_linear(*ends.layer(WIDTH), dtype)
    return lambda x: attention_branch(x, 2, *layers, TokenGroups(*everybody(x.dtype)), 1e-5)


def attention_int8(ends: Ends, dtype: torch.dtype) -> Branch:
    layers = pack_int8_normed(torch.randn(3 * WIDTH, WIDTH), None), pack_int8(*ends.layer(WIDTH))
    return lambda x: attention_branch(x, 2, *layers, TokenGroups(*everybody(x.dtype)), 1e-5)


def everybody(stored: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.arange(GRID.tokens, dtype=torch.int32)[None], torch.zeros(3 * WIDTH, dtype=PRODUCTS[stored])


def neighbors(ends: Ends, dtype: torch.dtype) -> Branch:
    layers, cut = (
        (pack_linear(torch.randn(3 * WIDTH, WIDTH), None, dtype), pack_linear(*ends.layer(WIDTH), dtype)),
        meeting(GRID, 3, 1),
    )
    padding = torch.zeros(2, 2, WIDTH // 2, dtype=dtype)
    return lambda x: neighborhood_branch(x, 2, *layers, run_bias(torch.zeros(25, 2), cut), cut, padding, 1e-5)


def channels(ends: Ends, dtype: torch.dtype) -> Branch:
    layers = pack_linear(torch.randn(70, WIDTH), None, dtype), pack_linear(*ends.layer(70), dtype)
    return lambda x: mlp(x, *layers, add=x, norm_eps=1e-5)


def channels_int8(ends: Ends, dtype: torch.dtype) -> Branch:
    layers = pack_int8_normed(torch.randn(70, WIDTH), None), pack_int8(*ends.layer(70))
    return lambda x: mlp(x, *layers, add=x, norm_eps=1e-5)


def image_channels(ends: Ends, dtype: torch.dtype) -> Branch:
    layers = pack_linear(torch.randn(70, WIDTH), None, dtype), pack_linear(*ends.layer(70), dtype)
    return lambda x: image_mlp(x, *layers, 1e-5)


def pooling(ends: Ends, dtype: torch.dtype) -> Branch:
    return lambda x: pool(x, GRID, 3, lanes(torch.full((WIDTH,), ends.scale + abs(ends.bias))), 1e-5)


def tokens(ends: Ends, dtype: torch.dtype) -> Branch:
    first, second = nn.Linear(GRID.tokens, 20), nn.Linear(20, GRID.tokens)
    with torch.no_grad():
        for made, given in zip((second.weight, second.bias), ends.layer(20, GRID.tokens), strict=True):
            made.copy_(given)
    layers = TokenLayer.of(first, dtype), TokenLayer.of(second, dtype)
    return lambda x: token_mlp(x, LaneNorm.of(nn.LayerNorm(WIDTH)), *layers)


def end_norm(ends: Ends) -> LaneNorm:
    return LaneNorm(*(lanes(torch.full((WIDTH,), value)) for value in (ends.scale, ends.bias)), 1e-5)


def cosines(ends: Ends, dtype: torch.dtype) -> Branch:
    layers = (
        pack_linear(torch.randn(3 * WIDTH, WIDTH), None, dtype),
        pack_linear(torch.randn(WIDTH, WIDTH), None, dtype),
    )
    scales, norm = torch.tensor([10.0, 100.0]), end_norm(ends)
    return lambda x: cosine_branch(x, 2, *layers, TokenGroups(*everybody(x.dtype)), scales, norm)


def channels_post_norm(ends: Ends, dtype: torch.dtype) -> Branch:
    layers = pack_linear(torch.randn(70, WIDTH), None, dtype), pack_linear(torch.randn(WIDTH, 70), None, dtype)
    return lambda x: post_norm_mlp(x, *layers, end_norm(ends))


BRANCHES = [
    *(attention, attention_int8, neighbors, channels, channels_int8, image_channels, pooling, tokens),
    *(cosines, channels_post_norm),
]


def made(branch: Callable[[Ends, torch.dtype], Branch], ends: Ends, dtype: torch.dtype) -> Branch:
    if branch in (attention_int8, channels_int8) and int8_refusal():
        pytest.skip(str(int8_refusal()))
    return branch(ends, dtype)


@pytest.mark.parametrize("rows", [1, 8])  # images: few share out outputs, many share out rows
@pytest.mark.parametrize("branch", BRANCHES)
def test_small_residuals_round_little(branch, rows: int, dtype: torch.dtype) -> None:
    x = (torch.randn(rows, GRID.tokens, WIDTH) + 0.5).to(RESIDUAL[dtype])
    before = x.clone()
    y = made(branch, Ends(scale=CLOSE[RESIDUAL[dtype]] / 100, bias=0.0), dtype)(x)
    assert y.dtype == RESIDUAL[dtype] and torch.equal(x, before)
    assert off(y, x.double()) < CLOSE[RESIDUAL[dtype]]
    if dtype != torch.float32:
        assert off(x.to(dtype), x.double()) > 2 * CLOSE[RESIDUAL[dtype]]  # the loss in the compute dtype


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("branch", BRANCHES)
def test_overflow_saturates(branch, sign: int) -> None:
    if refusal(torch.bfloat16):
        pytest.skip(str(refusal(torch.bfloat16)))
    largest = torch.finfo(torch.float16).max
    x = torch.randn(2, GRID.tokens, WIDTH).half() + 60000 * sign
    x[:, ::2] -= 1000 * sign  # for pooling: cells that differ from those around
    y = made(branch, Ends(scale=1e6, bias=1e6 * sign), torch.bfloat16)(x)
    assert y.isfinite().all() and y.abs().max() == largest
    x[0, 3, 35] = torch.nan
    assert made(branch, Ends(scale=1e-3, bias=0.0), torch.bfloat16)(x)[0, 3, 35].isnan()


@pytest.mark.parametrize("width", [1, 16, 33])
def test_every_fp16_number_round_trips(width: int) -> None:
    if refusal(torch.bfloat16):
        pytest.skip(str(refusal(torch.bfloat16)))
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    finite = every[every.isfinite()]
    x = pad(finite, (0, -len(finite) % width)).unflatten(0, (-1, width)).contiguous()
    nothing = pack_linear(torch.zeros(width, 2), None, torch.bfloat16)
    assert torch.equal(linear(torch.zeros(len(x), 2, dtype=torch.bfloat16), nothing, ADD, x), x)


def test_fp32_rounds_to_nearest_and_saturates() -> None:
    if refusal(torch.bfloat16):
        pytest.skip(str(refusal(torch.bfloat16)))
    bias = torch.cat([torch.randn(200) * 10.0 ** torch.randint(-9, 8, (200,)), torch.tensor([torch.inf, torch.nan])])
    for width in (len(bias), 1):  # whole vectors, and single numbers
        for some in bias.split(width):
            nothing = pack_linear(torch.zeros(len(some), 2), some, torch.bfloat16)
            got = linear(torch.zeros(1, 2, dtype=torch.bfloat16), nothing, PLAIN, dtype=torch.float16)[0]
            torch.testing.assert_close(got, some.clamp(-65504, 65504).half(), rtol=0, atol=0, equal_nan=True)


def test_patch_embedding_starts_in_the_residual_dtype(dtype: torch.dtype) -> None:
    packed = pack_linear(torch.zeros(20, 48), torch.full((20,), 1e6), dtype)
    y = embed_patches(torch.randn(1, 3, 8, 8), 4, packed)
    assert y.dtype == RESIDUAL[dtype] and torch.equal(y, torch.full_like(y, min(1e6, torch.finfo(y.dtype).max)))
