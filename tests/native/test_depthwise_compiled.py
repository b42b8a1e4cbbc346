"""Depthwise convolutions and LayerNorm in native code against PyTorch in fp64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from vitrail.grid import Grid
from vitrail.native.build import refusal
from vitrail.native.depthwise import depthwise, depthwise_branch, pack_depthwise
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import pack_linear
from vitrail.native.layer_norm import layer_norm, rms_norm
from vitrail.native.norms import LaneNorm, lanes

CLOSE = {torch.float32: 3e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(1, 1, 3, 3), (5, 9, 37, 3), (7, 14, 100, 5), (3, 20, 16, 9), (17, 8, 33, 7)]


def skip_without(dtype: torch.dtype) -> None:
    products = torch.bfloat16 if dtype == torch.float16 else dtype
    if refusal(products, "depthwise", "layer_norm"):
        pytest.skip(str(refusal(products)))


def expected(x: Tensor, grid: Grid, conv: nn.Conv2d) -> Tensor:
    """Convolve cells in fp64."""
    cells = x.double().unflatten(1, (grid.h, grid.w)).permute(0, 3, 1, 2)
    bias = None if conv.bias is None else conv.bias.double()
    made = nn.functional.conv2d(cells, conv.weight.double(), bias, padding=conv.padding, groups=conv.groups)
    return made.permute(0, 2, 3, 1).flatten(1, 2)


def convolution(channels: int, size: int, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=bias).requires_grad_(False)
    nn.init.normal_(conv.weight)
    return conv


def off(got: Tensor, want: Tensor) -> float:
    return ((got.double() - want).norm() / want.norm()).item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("h", "w", "channels", "size"), SIZES)
def test_against_fp64(h: int, w: int, channels: int, size: int, dtype: torch.dtype) -> None:
    skip_without(dtype)
    grid, conv = Grid(h, w), convolution(channels, size)
    x = torch.randn(3, h * w, channels).to(dtype)
    want = expected(x, grid, conv)
    assert off(depthwise(x, grid, pack_depthwise(conv)), want) < CLOSE[dtype]
    assert off(depthwise(x, grid, pack_depthwise(conv, residual=True)), want + x.double()) < CLOSE[dtype]
    if dtype != torch.float16:
        assert (
            off(depthwise(x, grid, pack_depthwise(conv, "relu"), gelu=True), gelu(expected(x.relu(), grid, conv)))
            < (CLOSE[dtype])
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("h", "w", "channels", "size"), SIZES)
def test_a_norm_and_a_residual_after_it(h: int, w: int, channels: int, size: int, dtype: torch.dtype) -> None:
    """The residual may have more significant bits than the map, and so has the sum."""
    skip_without(dtype)
    grid, conv, (scale, shift) = Grid(h, w), convolution(channels, size), torch.randn(2, channels)
    x, add = torch.randn(2, h * w, channels).to(dtype), torch.randn(2, h * w, channels)
    packed = replace(pack_depthwise(conv), after=(lanes(scale), lanes(shift)))
    want = gelu(expected(x, grid, conv)) * scale.double() + shift.double()
    assert off(depthwise(x, grid, packed, gelu=True), want) < CLOSE[dtype]
    for stored in {dtype, RESIDUAL[dtype]}:
        more = add.to(stored)
        got = depthwise(x, grid, packed, gelu=True, add=more)
        assert got.dtype == stored and off(got, want + more.double()) < CLOSE[stored]


def test_zeros_around_the_map_are_not_activated() -> None:
    skip_without(torch.float32)
    conv, x = convolution(5, 3, bias=False), torch.randn(1, 12, 5)
    star = 0.8 * x.relu().square() - 0.4
    packed = pack_depthwise(conv, "squared relu", 0.8, -0.4)
    assert off(depthwise(x, Grid(3, 4), packed), expected(star, Grid(3, 4), conv)) < CLOSE[torch.float32]


BRANCHES = [
    (1, 1, 36, 3), (5, 9, 64, 5), (7, 14, 130, 3), (30, 40, 1024, 3), (17, 40, 1000, 7), (3, 200, 1200, 9)
]  # fmt: skip
"""Maps and hidden channels; those of 1,000 and more exceed a cache, so that they are computed in strips of rows."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("h", "w", "hidden", "size"), BRANCHES)
def test_a_branch_in_strips_is_the_formula_on_the_whole_map(
    h: int, w: int, hidden: int, size: int, dtype: torch.dtype
) -> None:
    """Images do not mix: one of NaN leaves the others as they are."""
    skip_without(dtype)
    grid, conv, channels = Grid(h, w), convolution(hidden, size), 8
    x = torch.randn(2, h * w, channels).to(RESIDUAL[dtype])
    first, last = torch.randn(hidden, channels) / 3, torch.randn(channels, hidden) / hidden**0.5
    bias, end = torch.randn(hidden), torch.randn(channels)
    normed = nn.functional.layer_norm(x.double(), (channels,), eps=1e-6)
    for before, act in (("none", True), ("relu", False)):
        made = normed @ first.double().T + bias.double()
        mixed = expected(made.relu() if before == "relu" else made, grid, conv)
        want = x.double() + (gelu(mixed) if act else mixed) @ last.double().T + end.double()
        packed = pack_linear(first, bias, dtype), pack_depthwise(conv, before), pack_linear(last, end, dtype)
        with_nan = torch.cat([x, torch.full_like(x[:1], float("nan"))])
        got = depthwise_branch(with_nan, grid, *packed, 1e-6, act)
        assert off(got[:2], want) < 3 * CLOSE[dtype] and got[2].isnan().all(), before


@pytest.mark.parametrize("threads", [1, 3])
def test_bands_of_rows_agree_and_no_memory_is_read_beyond(threads: int) -> None:
    skip_without(torch.float32)
    conv, x = convolution(16, 3), torch.full((3, 40 * 6, 16), float("nan"))
    x[1] = torch.randn(40 * 6, 16)
    torch.set_num_threads(threads)
    try:
        got = depthwise(x, Grid(40, 6), pack_depthwise(conv))
    finally:
        torch.set_num_threads(1)
    assert off(got[1:2], expected(x[1:2], Grid(40, 6), conv)) < CLOSE[torch.float32]
    assert got[[0, 2]].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 16, 37])
def test_layer_norm(channels: int, dtype: torch.dtype) -> None:
    skip_without(dtype)
    norm = nn.LayerNorm(channels, eps=1e-3).requires_grad_(False)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = (torch.randn(2, 9, channels) * 3 + 5).to(RESIDUAL[dtype])
    want = nn.functional.layer_norm(x.double(), (channels,), norm.weight.double(), norm.bias.double(), norm.eps)
    without_mean = x.double() * (x.double().square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight.double()
    for stored in {RESIDUAL[dtype], dtype}:
        got = layer_norm(x, LaneNorm.of(norm), stored)
        assert got.dtype == stored
        assert off(got, want) < CLOSE[stored]
        assert off(rms_norm(x, LaneNorm.of(norm), stored), without_mean + norm.bias.double()) < CLOSE[stored]
