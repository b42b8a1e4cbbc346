"""Blocks of a GEMM along its inputs, and builds for other instruction sets, against products in fp64."""

import platform
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from closeness import CLOSE, drawn, off, with_threads
from vitrail.native import build as native_build
from vitrail.native.build import library, refusal
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import ADD, GELU, linear, mlp, pack_linear

pytestmark = pytest.mark.skipif(refusal(torch.float32) is not None, reason="no compiled operations here")
SMALL_L2 = 64 * 1280  # blocks of 64 steps


@pytest.fixture(params=[SMALL_L2, 1 << 20, 4 << 20])
def l2(request: pytest.FixtureRequest) -> Iterator[int]:
    """Choose blocks for another L2 cache."""
    before = library("gemm").vitrail_set_l2(0)
    library("gemm").vitrail_set_l2(request.param)
    yield request.param
    library("gemm").vitrail_set_l2(before)


def case(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return drawn(rows, inputs, dtype=dtype), drawn(outputs, inputs, dtype=dtype).float(), torch.randn(outputs)


# Products in bf16 take pairs of inputs, so K is even.
@pytest.mark.parametrize("inputs", [2, 62, 64, 66, 126, 128, 130, 258, 1000, 5000])
@pytest.mark.parametrize(("rows", "outputs"), [(1, 1), (5, 17), (7, 64), (13, 130), (31, 100)])
def test_blocks_along_the_inputs(rows: int, inputs: int, outputs: int, l2: int, dtype: torch.dtype) -> None:
    x, weight, bias = case(rows, inputs, outputs, dtype)
    packed, want = pack_linear(weight, bias, dtype), x.double() @ weight.double().T + bias.double()
    assert off(linear(x, packed), want) < CLOSE[dtype]
    add = drawn(rows, outputs, dtype=RESIDUAL[dtype])
    assert off(linear(x, packed, ADD, add), want + add.double()) < CLOSE[RESIDUAL[dtype]]
    assert (linear(x, packed, GELU).double() - gelu(want)).norm() < 2 * CLOSE[dtype] * want.norm()


@pytest.mark.parametrize("inputs", [1, 63, 65, 127, 129, 1537])
def test_odd_numbers_of_inputs(inputs: int, l2: int) -> None:
    x, weight, bias = case(14, inputs, 70, torch.float32)
    want = x.double() @ weight.double().T + bias.double()
    assert off(linear(x, pack_linear(weight, bias, torch.float32)), want) < CLOSE[torch.float32]


def test_a_block_does_not_depend_on_rows_or_threads(l2: int, dtype: torch.dtype) -> None:
    x, weight, bias = case(200, 700, 150, dtype)
    packed = pack_linear(weight, bias, dtype)
    all_rows = linear(x, packed)
    assert torch.equal(with_threads(lambda: linear(x, packed)), all_rows)
    if dtype == torch.float32:  # the matrix unit takes bf16, where rows are enough
        assert torch.equal(linear(x[:7], packed), all_rows[:7])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 63, 64, 298, 299])
def test_nan_and_infinity_stay_in_their_row(bad: float, place: int, l2: int, dtype: torch.dtype) -> None:
    x, weight, bias = case(9, 300, 80, dtype)
    packed, clean = pack_linear(weight, bias, dtype), x.clone()
    x[4, place] = bad
    got = linear(x, packed)
    assert not got[4].isfinite().any()
    assert torch.equal(got[[0, 1, 2, 3, 5, 6, 7, 8]], linear(clean, packed)[[0, 1, 2, 3, 5, 6, 7, 8]])


def test_an_mlp_with_a_hidden_part_of_many_blocks(l2: int, dtype: torch.dtype) -> None:
    x = drawn(100, 48, dtype=RESIDUAL[dtype])
    first, second = drawn(700, 48, dtype=dtype).float() / 7, drawn(48, 700, dtype=dtype).float() / 26
    hidden = gelu(x.double() @ first.double().T)
    packed = pack_linear(first, None, dtype), pack_linear(second, None, dtype)
    assert off(mlp(x, *packed), hidden @ second.double().T) < 3 * CLOSE[dtype]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for other x86 processors")
@pytest.mark.parametrize("machine", ["skylake-avx512", "haswell", "x86-64"])
def test_other_instruction_sets(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [f"-march={machine}" if flag.startswith("-march") else flag for flag in native_build.FLAGS]
    monkeypatch.setattr(native_build, "FLAGS", tuple(flags))
    monkeypatch.setattr(native_build, "_FOUND", {})
    for size in (0, SMALL_L2):
        library("gemm").vitrail_set_l2(size)
        for rows, inputs, outputs in [(1, 3, 1), (7, 70, 33), (13, 129, 65), (40, 1000, 130), (25, 5000, 64)]:
            x, weight, bias = case(rows, inputs, outputs, torch.float32)
            want = x.double() @ weight.double().T + bias.double()
            assert off(linear(x, pack_linear(weight, bias, torch.float32)), want) < CLOSE[torch.float32]
