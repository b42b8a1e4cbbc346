"""Packing of weights in C++, against the same written with tensors."""

import pytest
import torch
from packing_twin import panels, quantise

from vitrail.native.build import library, refusal
from vitrail.native.gemm import pack_linear
from vitrail.native.int8 import int8_refusal, pack_int8

pytestmark = pytest.mark.skipif(refusal(torch.float32) is not None, reason="no compiled operations here")
SIZES = [(1, 2), (64, 48), (65, 50), (130, 34), (16, 6), (7, 768), (200, 1026)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 1), (torch.bfloat16, 2)])
def test_floats_are_packed_bit_for_bit(size: tuple[int, int], dtype: torch.dtype, step: int) -> None:
    weight = torch.randn(*size)
    weight[0, 0] = torch.inf
    packed = pack_linear(weight, None, dtype)
    assert torch.equal(packed.panels, panels(weight.to(dtype), step))
    assert packed.bias.shape == (size[0] + -size[0] % library("gemm").vitrail_lanes(),)


def test_a_transposed_weight_is_packed_by_its_values() -> None:
    weight = torch.randn(40, 70)
    assert torch.equal(pack_linear(weight.T, None, torch.float32).panels, panels(weight.T, 1))


@pytest.mark.skipif(int8_refusal() is not None, reason="no products of bytes here")
@pytest.mark.parametrize("size", [*SIZES, (5, 7), (33, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-41, 1e30])
def test_int8_is_packed_bit_for_bit(size: tuple[int, int], scale: float) -> None:
    weight = torch.randn(*size) * scale
    weight[-1] = 0
    packed = pack_int8(weight, None)
    numbers, step = quantise(weight)
    assert torch.equal(packed.panels, panels(numbers, 4))
    assert torch.equal(packed.step[: size[0]], step) and not packed.step[size[0] :].any()
    assert torch.equal(packed.sums[: size[0]], step * numbers.sum(dim=1)) and not packed.sums[size[0] :].any()


@pytest.mark.skipif(int8_refusal() is not None, reason="no products of bytes here")
def test_nan_in_a_weight_stays_in_its_output() -> None:
    weight = torch.randn(20, 30)
    weight[3, 17] = torch.nan
    packed = pack_int8(weight, None)
    assert packed.step.isnan().nonzero().tolist() == [[3]]
