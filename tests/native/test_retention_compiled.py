"""Compiled retention against the module in fp64."""

import pytest
import torch
from torch.nn.functional import rms_norm, silu

from closeness import CLOSE, drawn, off, with_threads
from vitrail.fused.rotary_attention import rotation_by
from vitrail.native.build import refusal
from vitrail.native.retention import Decay, retention
from vitrail.parts.token_mixers.retention import ParallelRetention, decay_rates, rotate_pairs

DTYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(bool(refusal(dtype)), reason=str(refusal(dtype))), id=str(dtype))
    for dtype in (torch.float32, torch.bfloat16)
]
pytestmark = pytest.mark.parametrize("dtype", DTYPES)


def prepared(heads: int, tokens: int, width: int) -> tuple:
    gammas = decay_rates(heads, torch.zeros(1)).flatten()
    return rotation_by(rotate_pairs, tokens, width), Decay.of(gammas, tokens)


@pytest.mark.parametrize(("width", "wide"), [(4, 8), (16, 16), (36, 72), (64, 128)])
@pytest.mark.parametrize("tokens", [1, 5, 64, 65, 130])
def test_it_equals_the_parallel_form(tokens: int, width: int, wide: int, dtype: torch.dtype) -> None:
    heads, eps = 3, 1e-5
    rows = drawn(2, tokens, 2 * heads * (width + wide), dtype=dtype)
    got = retention(rows, heads, width, *prepared(heads, tokens, width), eps)
    sizes = [heads * width, heads * width, heads * wide, heads * wide]
    q, k, v, gate = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in rows.double().split(sizes, dim=2))
    retained = ParallelRetention()(rotate_pairs(q), rotate_pairs(k), v)
    want = silu(gate) * rms_norm(retained, retained.shape[-1:], eps=eps)
    assert got.dtype == dtype and off(got, want.transpose(1, 2).flatten(2)) < 8 * CLOSE[dtype]


def test_threads_do_not_change_the_result(dtype: torch.dtype) -> None:
    rows, given = drawn(3, 30, 2 * 4 * 24, dtype=dtype), prepared(4, 30, 8)
    one, three = (with_threads(lambda: retention(rows, 4, 8, *given, 1e-5), count) for count in (1, 3))
    assert torch.equal(one, three)
    assert retention(rows[:, :0], 4, 8, *prepared(4, 0, 8), 1e-5).shape == (3, 0, 64)
