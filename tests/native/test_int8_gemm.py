"""Products of bytes against their twin in whole numbers, at every remainder of rows, inputs and outputs."""

import pytest
import torch
from packing_twin import quantise
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from closeness import off, with_threads
from vitrail.native.attention import TokenGroups, attend_groups, attention_branch, lane_bias
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import ADD, GELU, PLAIN, linear, mlp
from vitrail.native.int8 import int8_refusal, lengths, pack_int8, pack_int8_normed

REASON = int8_refusal()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
CLOSE = {torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float16: 4e-4}


def read(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return bytes, scale and least of each row, as native/int8.h has it."""
    x = x.float()
    least, most = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    step = (most - least) / 255
    return ((x - least) * (1 / step)).round(), step, least


def twin(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply whole numbers exactly, then scale in fp64."""
    (numbers, scale, least), (weights, step) = read(x), quantise(weight)
    sums = (numbers.long() @ weights.long().T).double()
    y = step.double() * (scale.double() * sums + least.double() * weights.long().sum(1))
    return y if bias is None else y + bias.double()


def twin_of_normed(x: Tensor, weight: Tensor, bias: Tensor, norm_eps: float) -> Tensor:
    """Bring rows to mean 0, multiply by the factors, and only after the product to variance 1."""
    x, factors = x.double(), lengths(weight)
    scale = 1 / (x.var(-1, correction=0, keepdim=True) + norm_eps).sqrt()
    return twin((x - x.mean(-1, keepdim=True)).float() * factors, weight / factors, None) * scale + bias.double()


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 13, 200])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (8, 15), (6, 16), (33, 33), (64, 64), (10, 65), (100, 131)])
def test_gemm_is_exact_on_integers(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs), torch.randn(outputs)
    packed = pack_int8(weight, bias)
    want = twin(x, weight, bias)
    assert off(linear(x, packed), want) < CLOSE[dtype]
    assert off(linear(x, pack_int8(weight, None)), twin(x, weight, None)) < CLOSE[dtype]
    add = torch.randn(rows, outputs).to(RESIDUAL[dtype])
    assert off(linear(x, packed, ADD, add), want + add.double()) < CLOSE[RESIDUAL[dtype]]
    assert (linear(x, packed, GELU).double() - gelu(want)).norm() < 2 * CLOSE[dtype] * want.norm()


@pytest.mark.parametrize("width", [4, 16, 30, 100])
def test_layer_norm_is_folded_into_quantization(width: int, dtype: torch.dtype) -> None:
    x, weight, bias = (torch.randn(9, width) * 3 + 5).to(RESIDUAL[dtype]), torch.randn(20, width), torch.randn(20)
    got = linear(x, pack_int8_normed(weight, bias), PLAIN, norm_eps=1e-5, dtype=dtype)
    assert off(got, twin_of_normed(x, weight, bias, 1e-5)) < 3 * CLOSE[dtype]


def test_smoothing_factors_equalise_channels() -> None:
    """Some inputs are 30 times as large as others and their weights so much smaller, as training leaves them."""
    large = torch.ones(256).index_fill_(0, torch.arange(0, 256, 32), 30.0)
    x, weight = torch.randn(50, 256) * large, torch.randn(64, 256) / large
    want = layer_norm(x.double(), (256,)) @ weight.double().T
    normed = layer_norm(x, (256,))
    assert off(linear(x, pack_int8_normed(weight, None), norm_eps=1e-5), want) < 0.012
    assert off(linear(normed, pack_int8(weight, None)), want) > 0.05


def test_zero_columns_do_not_change_the_scale(dtype: torch.dtype) -> None:
    x, weight = torch.randn(9, 40).to(dtype), torch.randn(20, 40)
    weight[:, 7] = 0.0
    want = layer_norm(x.double(), (40,)) @ weight.double().T
    assert off(linear(x, pack_int8_normed(weight, None), norm_eps=1e-5), want) < 0.012
    nothing = pack_int8_normed(torch.zeros(20, 40), torch.ones(20))
    assert (linear(x, nothing, norm_eps=1e-5) == 1).all()


def test_quantization_error_is_small() -> None:
    x, weight = torch.randn(50, 256), torch.randn(64, 256)
    assert off(linear(x, pack_int8(weight, None)), x.double() @ weight.double().T) < 0.012


def test_an_outlier_affects_only_its_row() -> None:
    x, weight = torch.randn(8, 64), torch.randn(16, 64)
    before = linear(x, pack_int8(weight, None))
    x[3, 5] = 1000.0
    after = linear(x, pack_int8(weight, None))
    same = [row != 3 for row in range(8)]
    assert torch.equal(before[same], after[same])


def test_constant_rows_and_weights() -> None:
    x = torch.tensor([[0.0], [-2.5], [7.0]]).expand(3, 20).contiguous()
    weight = torch.cat([torch.zeros(1, 20), torch.full((1, 20), -0.3), torch.randn(14, 20)])
    bias = torch.randn(16)
    assert off(linear(x, pack_int8(weight, bias)), twin_of_constants(x, weight, bias)) < 1e-6
    normed = linear(x, pack_int8_normed(weight, bias), norm_eps=1e-5)
    assert (normed - bias).abs().max() < 1e-2  # 7 has no variance but rounding


def twin_of_constants(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    numbers, step = quantise(weight)
    return x.double() @ (numbers.double() * step.double()[:, None]).T + bias.double()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 17])  # in a whole vector, and after the last
def test_nan_propagates(bad: float, place: int) -> None:
    x = torch.randn(3, 18)
    x[1, place] = bad
    weight = torch.randn(16, 18)
    for y in linear(x, pack_int8(weight, None)), linear(x, pack_int8_normed(weight, None), norm_eps=1e-5):
        assert not y[1].isfinite().any() and y[[0, 2]].isfinite().all()


@pytest.mark.parametrize("rows", [5, 300])
def test_mlp_equals_two_linear_layers(rows: int, dtype: torch.dtype) -> None:
    x, add = torch.randn(2, rows, 24).to(RESIDUAL[dtype]).unbind()
    into, second = (torch.randn(70, 24) / 5, torch.randn(70)), pack_int8(torch.randn(24, 70) / 8, None)
    for first, norm_eps in ((pack_int8(*into), None), (pack_int8_normed(*into), 1e-6)):
        between = linear(x, first, GELU, norm_eps=norm_eps, dtype=dtype)
        assert torch.equal(mlp(x, first, second, norm_eps=norm_eps), linear(between, second, dtype=x.dtype))
        want = linear(between, second, ADD, add)
        assert torch.equal(mlp(x, first, second, add=add, norm_eps=norm_eps), want)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_branch_equals_its_three_parts(biased: bool, dtype: torch.dtype) -> None:
    heads, width = 2, 24
    slots = torch.tensor([[4, 0, -1], [1, -1, -1], [3, 5, 2]], dtype=torch.int32)
    x, padding = torch.randn(3, 6, width).to(RESIDUAL[dtype]), torch.randn(3 * width).to(dtype)
    kinds, bias = torch.tensor([1, 0, 1], dtype=torch.int32), lane_bias(torch.randn(2, heads, 3, 3))
    seating = TokenGroups(slots, padding, kinds, bias) if biased else TokenGroups(slots, padding)
    into = pack_int8_normed(torch.randn(3 * width, width) / 5, torch.randn(3 * width))
    layers = into, pack_int8(torch.eye(width), None)
    qkv = linear(x, layers[0], norm_eps=1e-5, dtype=dtype)
    want = linear(attend_groups(qkv, heads, seating), layers[1], ADD, x)
    got = attention_branch(x, heads, *layers, seating, 1e-5)
    assert off(got, want.double()) < 1e-3


def test_threads_do_not_change_the_output(dtype: torch.dtype) -> None:
    x = torch.randn(400, 64).to(dtype)
    packed = pack_int8(torch.randn(200, 64), torch.randn(200)), pack_int8(torch.randn(64, 200), None)

    def run() -> tuple[Tensor, ...]:
        return linear(x[:7], packed[0]), linear(x, packed[0]), mlp(x.to(RESIDUAL[dtype]), *packed)

    assert all(torch.equal(a, b) for a, b in zip(run(), with_threads(run), strict=True))
