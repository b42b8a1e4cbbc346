"""Compiled operations against their formulas in fp64, at every remainder of rows, outputs and keys."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from closeness import CLOSE, drawn, off, with_threads
from vitrail.native.attention import (
    GatedPositions,
    Rotation,
    TokenGroups,
    attend_causal,
    attend_gated,
    attend_groups,
    attend_keys,
    gated_branch,
    lane_bias,
    rotate,
    rotated_branch,
)
from vitrail.native.build import refusal
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import (
    ADD,
    GELU,
    PLAIN,
    QUICK_GELU,
    SILU_GATE,
    SQUARED_RELU,
    TANH_GELU,
    linear,
    mlp,
    pack_linear,
)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 13, 200])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (8, 15), (6, 16), (32, 33), (64, 64), (10, 65), (24, 131)])
def test_gemm_equals_the_sum_of_products(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    x, weight, bias = (
        drawn(rows, inputs, dtype=dtype),
        drawn(outputs, inputs, dtype=dtype).float(),
        torch.randn(outputs),
    )
    packed = pack_linear(weight, bias, dtype)
    assert off(linear(x, packed), product(x, weight, bias)) < CLOSE[dtype]
    assert off(linear(x, pack_linear(weight, None, dtype)), product(x, weight, None)) < CLOSE[dtype]
    add = drawn(rows, outputs, dtype=RESIDUAL[dtype])
    assert off(linear(x, packed, ADD, add), product(x, weight, bias) + add.double()) < CLOSE[RESIDUAL[dtype]]
    assert off(linear(x, packed, dtype=RESIDUAL[dtype]), product(x, weight, bias)) < CLOSE[RESIDUAL[dtype]]
    assert torch.equal(linear(x.to(RESIDUAL[dtype]), packed, dtype=dtype), linear(x, packed))
    far = (linear(x, packed, GELU).double() - gelu(product(x, weight, bias))).norm()
    assert far < 2 * CLOSE[dtype] * product(x, weight, bias).norm()  # far below zero GELU itself is next to nothing


def test_gelu_is_exact_to_fp32() -> None:
    if refusal(torch.float32):
        pytest.skip(str(refusal(torch.float32)))
    x = torch.linspace(-30, 30, 60_001)[:, None]
    got = linear(x, pack_linear(torch.ones(1, 1), None, torch.float32), GELU)
    want = gelu(x.double())
    assert ((got.double() - want).abs() / want.abs().clamp(min=1.0)).max() < 4e-7


@pytest.mark.parametrize("width", [2, 16, 30, 100])
def test_layer_norm_before_gemm(width: int, dtype: torch.dtype) -> None:
    x = (torch.randn(9, width) * 3 + 5).to(RESIDUAL[dtype])
    weight = drawn(20, width, dtype=dtype).float()
    want = product(layer_norm(x.double(), (width,), eps=1e-5), weight, None)
    got = linear(x, pack_linear(weight, None, dtype), PLAIN, norm_eps=1e-5, dtype=dtype)
    assert got.dtype == dtype and off(got, want) < 3 * CLOSE[dtype]


@pytest.mark.parametrize("rows", [5, 64, 300])  # few rows share out outputs, many share out rows
def test_mlp_equals_two_linear_layers(rows: int, dtype: torch.dtype) -> None:
    x, add = drawn(rows, 24, dtype=RESIDUAL[dtype]), drawn(rows, 24, dtype=RESIDUAL[dtype])
    first, second = drawn(70, 24, dtype=dtype).float() / 5, drawn(24, 70, dtype=dtype).float() / 8
    b1, b2 = torch.randn(70), torch.randn(24)
    hidden = gelu(product(layer_norm(x.double(), (24,), eps=1e-6), first, b1))
    want = product(hidden, second, b2) + add.double()
    packed = pack_linear(first, b1, dtype), pack_linear(second, b2, dtype)
    assert off(mlp(x, *packed, add=add, norm_eps=1e-6), want) < 2 * CLOSE[dtype]
    plain = product(gelu(product(x, first, b1)), second, b2)
    assert off(mlp(x, *packed), plain) < 3 * CLOSE[dtype]
    before = x.clone()
    assert torch.equal(mlp(x, *packed, add=x), mlp(x, *packed, add=x.clone())) and torch.equal(x, before)
    inputs = product(x, first, b1)
    acts = {SQUARED_RELU: inputs.relu().square(), QUICK_GELU: inputs * torch.sigmoid(1.702 * inputs)}
    acts[TANH_GELU] = gelu(inputs, approximate="tanh")
    for activation, hidden in acts.items():
        want = product(hidden, second, b2)
        assert off(mlp(x, *packed, activation=activation), want) < 3 * CLOSE[dtype]


@pytest.mark.parametrize("rows", [3, 200])  # few rows are split over outputs
@pytest.mark.parametrize("inner", [None, 1e-5])
@pytest.mark.parametrize("hidden", [16, 70])
def test_gated_mlp(hidden: int, inner: float | None, rows: int, dtype: torch.dtype) -> None:
    """`(a, b)` are next to each other in a row, and gated in place."""
    x, add = drawn(rows, 24, dtype=RESIDUAL[dtype]), drawn(rows, 24, dtype=RESIDUAL[dtype])
    first, second = drawn(2 * hidden, 24, dtype=dtype).float() / 5, drawn(24, hidden, dtype=dtype).float() / 8
    b1, b2 = torch.randn(2 * hidden), torch.randn(24)
    a, b = product(layer_norm(x.double(), (24,), eps=1e-6), first, b1).chunk(2, dim=-1)
    gated = a * a.sigmoid() * b
    want = product(gated if inner is None else layer_norm(gated, (hidden,), eps=inner), second, b2) + add.double()
    packed = pack_linear(first, b1, dtype), pack_linear(second, b2, dtype)
    got = mlp(x, *packed, add=add, norm_eps=1e-6, activation=SILU_GATE, inner_eps=inner)
    assert off(got, want) < 4 * CLOSE[dtype]


@pytest.mark.parametrize("width", [4, 16, 36, 64])
@pytest.mark.parametrize("tokens", [1, 5, 50])
def test_rotated_queries_and_keys(tokens: int, width: int, dtype: torch.dtype) -> None:
    """In place, and within the branch; a pair is a complex number times e^(i angle)."""
    heads, channels = 3, 24
    angles = torch.randn(tokens, width // 2)
    sin = torch.stack([-angles.sin(), angles.sin()], -1).flatten(1)
    turn = Rotation(angles.cos().repeat_interleave(2, 1), sin)
    by = torch.polar(torch.ones(tokens, width // 2, dtype=torch.float64), angles.double())

    def turned(qkv: torch.Tensor) -> torch.Tensor:
        parts = qkv.double().unflatten(-1, (3, heads, -1, 2))  # (B, N, 3, h, d / 2, 2)
        pairs = torch.view_as_complex(parts[:, :, :2].contiguous()) * by[:, None, None]
        return torch.cat([torch.view_as_real(pairs), parts[:, :, 2:]], dim=2).flatten(2)

    qkv = drawn(2, tokens, 3 * heads * width, dtype=dtype)
    want = turned(qkv)
    assert off(rotate(qkv.clone(), heads, turn), want) < CLOSE[dtype]

    x = drawn(2, tokens, channels, dtype=RESIDUAL[dtype])
    weights = [drawn(3 * heads * width, channels, dtype=dtype).float() / 8, drawn(channels, heads * width, dtype=dtype)]
    projected = product(layer_norm(x.double(), (channels,), eps=1e-6), weights[0], torch.zeros(len(weights[0])))
    q, k, v = turned(projected).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
    want = x.double() + product(mixed, weights[1].float(), torch.zeros(channels))
    slots = torch.arange(tokens, dtype=torch.int32)[None]
    groups = TokenGroups(slots, torch.zeros(3 * heads * width, dtype=dtype))
    packed = [pack_linear(weight, None, dtype) for weight in (weights[0], weights[1].float())]
    got = rotated_branch(x, heads, *packed, groups, 1e-6, turn)
    assert off(got, want) < 6 * CLOSE[dtype]


@pytest.mark.parametrize("width", [2, 8, 32, 36, 64, 80])
@pytest.mark.parametrize("keys", [1, 4, 16, 17, 49, 65, 144])
def test_attention_equals_the_softmax_formula(keys: int, width: int, dtype: torch.dtype) -> None:
    heads, batch = 3, 2
    qkv = drawn(batch, keys, 3 * heads * width, dtype=dtype)
    qkv[..., : heads * width] /= width**0.5
    bias = torch.randn(1, heads, keys, keys)
    slots = torch.arange(keys, dtype=torch.int32)[None]
    q, k, v = (part.transpose(1, 2) for part in qkv.double().unflatten(2, (3, heads, width)).unbind(2))
    for add in (None, bias):
        scores = q @ k.transpose(2, 3) + (0 if add is None else add.double())
        want = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        kinds = None if add is None else torch.zeros(1, dtype=torch.int32)
        padding = torch.zeros(qkv.shape[2], dtype=dtype)
        got = attend_groups(qkv, heads, TokenGroups(slots, padding, kinds, None if add is None else lane_bias(add)))
        assert off(got, want) < 2 * CLOSE[dtype]


@pytest.mark.parametrize("width", [2, 36, 64])
@pytest.mark.parametrize("tokens", [1, 5, 17, 64, 130])
def test_positions_mixed_into_the_softmax(tokens: int, width: int, dtype: torch.dtype) -> None:
    """Alone, and within the branch. One head has positions alone: its contents weigh nothing."""
    heads, channels = 3, 24
    keep, closeness = torch.tensor([0.0, 0.3, 1.0]), CLOSE[dtype]
    given = (1 - keep[:, None, None]) * torch.randn(heads, tokens, tokens).softmax(-1)
    positions = GatedPositions.of(given, keep, dtype)

    def mixed(qkv: torch.Tensor) -> torch.Tensor:
        q, k, v = qkv.double().unflatten(2, (3, heads, width)).permute(2, 0, 3, 1, 4)
        maps = keep[:, None, None] * (q @ k.mT).softmax(-1) + given.double()
        return (maps @ v).transpose(1, 2).flatten(2)

    groups = TokenGroups(torch.arange(tokens, dtype=torch.int32)[None], torch.zeros(3 * heads * width, dtype=dtype))
    qkv = drawn(2, tokens, 3 * heads * width, dtype=dtype)
    qkv[..., : heads * width] /= width**0.5
    assert off(attend_gated(qkv, heads, groups, positions), mixed(qkv)) < 3 * closeness

    x = drawn(2, tokens, channels, dtype=RESIDUAL[dtype])
    first, second = (
        drawn(3 * heads * width, channels, dtype=dtype).float() / 8,
        drawn(channels, heads * width, dtype=dtype).float(),
    )
    projected = product(layer_norm(x.double(), (channels,), eps=1e-6), first, torch.zeros(len(first)))
    want = x.double() + product(mixed(projected), second, torch.zeros(channels))
    packed = [pack_linear(weight, None, dtype) for weight in (first, second)]
    assert off(gated_branch(x, heads, *packed, groups, 1e-6, positions), want) < 6 * closeness


@pytest.mark.parametrize("width", [2, 32, 36, 64])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (3, 16), (49, 49), (300, 7), (1000, 65), (10, 200), (27, 1300)])
def test_queries_and_keys_of_different_length(queries: int, keys: int, width: int, dtype: torch.dtype) -> None:
    heads = 3
    q, kv = drawn(2, queries, heads * width, dtype=dtype), drawn(2, keys, 2 * heads * width, dtype=dtype)
    q /= width**0.5
    rows = q.double().unflatten(2, (heads, width)).transpose(1, 2)
    k, v = kv.double().unflatten(2, (2, heads, width)).permute(2, 0, 3, 1, 4)
    want = ((rows @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).flatten(2)
    assert off(attend_keys(q, kv, heads), want) < 2 * CLOSE[dtype]


@pytest.mark.parametrize("width", [2, 36, 64])
@pytest.mark.parametrize("tokens", [1, 5, 16, 64, 65, 130, 333])
def test_causal_attention_is_the_formula_over_earlier_tokens(tokens: int, width: int, dtype: torch.dtype) -> None:
    heads = 3
    qkv = drawn(2, tokens, 3 * heads * width, dtype=dtype)
    qkv[..., : heads * width] /= width**0.5
    q, k, v = qkv.double().unflatten(2, (3, heads, width)).permute(2, 0, 3, 1, 4)
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    want = ((q @ k.mT).masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
    assert off(attend_causal(qkv, heads), want) < 2 * CLOSE[dtype]


@pytest.mark.parametrize("level", [-200.0, 0.0, 85.0])
def test_segments_of_keys_with_growing_scores(level: float, dtype: torch.dtype) -> None:
    """The largest score moves from segment to segment, so the sums before it are scaled down each time."""
    keys, width = 1500, 8
    q, kv = drawn(1, 12, width, dtype=dtype), drawn(1, keys, 2 * width, dtype=dtype)
    q[..., 0], kv[..., 0] = 1.0, (level + torch.linspace(0, 40, keys)).to(dtype)
    k, v = kv.double().chunk(2, dim=-1)
    want = (q.double() @ k.mT).softmax(-1) @ v
    assert off(attend_keys(q, kv, 1), want) < 2 * CLOSE[dtype]


@pytest.mark.parametrize("keys", [5, 49, 100])
@pytest.mark.parametrize("level", [-3e4, -200.0, -60.0, 60.0, 85.0, 200.0, 3e4])
def test_softmax_is_shift_invariant(level: float, keys: int, dtype: torch.dtype) -> None:
    qkv = drawn(1, keys, 3 * 16, dtype=dtype)
    slots, one = torch.arange(keys, dtype=torch.int32)[None], torch.zeros(1, dtype=torch.int32)
    bias = torch.randn(1, 1, keys, keys).round(decimals=1)
    bias[..., ::3, :] += level  # of some queries only: their neighbours in a tile stay where they were
    bias[..., 1::3, 0] += level  # one score alone
    q, k, v = qkv.double().unflatten(2, (3, 16)).unbind(2)
    want = (q @ k.transpose(1, 2) + bias[0].double()).softmax(-1) @ v
    got = attend_groups(qkv, 1, TokenGroups(slots, torch.zeros(48, dtype=dtype), one, lane_bias(bias)))
    rounded = 4e-7 * abs(level) if dtype == torch.float32 else 0  # fp32 resolution of such scores
    assert off(got, want) < 2 * CLOSE[dtype] + rounded


def test_groups_are_read_in_place_and_padding_attends_by_its_values(dtype: torch.dtype) -> None:
    heads, width = 2, 4
    slots = torch.tensor([[4, 0, -1], [1, -1, -1], [3, 5, 2]], dtype=torch.int32)
    kinds = torch.tensor([1, 0, 1], dtype=torch.int32)
    bias = torch.randn(2, heads, 3, 3)
    bias[1, :, :, 0] = -torch.inf  # nobody of the second kind sees the first of a group
    qkv, padding = drawn(2, 6, 24, dtype=dtype), drawn(24, dtype=dtype)
    got = attend_groups(qkv, heads, TokenGroups(slots, padding, kinds, lane_bias(bias)))
    for image in range(2):
        for group, kind in zip(slots.tolist(), kinds.tolist(), strict=True):
            rows = torch.stack([padding if j < 0 else qkv[image, j] for j in group]).double()
            q, k, v = rows.unflatten(1, (3, heads, width)).permute(1, 2, 0, 3)
            mixed = (q @ k.transpose(1, 2) + bias[kind].double()).softmax(-1) @ v
            for place, token in enumerate(group):
                if token >= 0:
                    assert off(got[image, token], mixed[:, place].flatten()) < 3 * CLOSE[dtype]


def test_threads_do_not_change_the_output(dtype: torch.dtype) -> None:
    x = drawn(400, 64, dtype=dtype)
    packed = pack_linear(torch.randn(200, 64), torch.randn(200), dtype), pack_linear(torch.randn(64, 200), None, dtype)

    def run() -> tuple[Tensor, ...]:
        return linear(x, packed[0]), mlp(x.to(RESIDUAL[dtype]), *packed)

    assert all(torch.equal(a, b) for a, b in zip(run(), with_threads(run), strict=True))
