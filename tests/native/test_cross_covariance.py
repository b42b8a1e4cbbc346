"""Compiled cross-covariance attention against loops over heads in fp64."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from closeness import CLOSE, drawn, off, with_threads
from vitrail.native.build import refusal
from vitrail.native.cross_covariance import covariance_attention

DTYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(bool(refusal(dtype)), reason=str(refusal(dtype))), id=str(dtype))
    for dtype in (torch.float32, torch.bfloat16)
]
pytestmark = pytest.mark.parametrize("dtype", DTYPES)


def by_heads(qkv: Tensor, heads: int, temperature: Tensor) -> Tensor:
    """Normalise queries and keys over the tokens, as the paper writes it."""
    parts = []
    for image in qkv.double().unflatten(2, (3, heads, -1)):
        for head in range(heads):
            q, k, v = (image[:, part, head].T for part in range(3))  # (d, N)
            maps = (temperature[head].double() * normalize(q, dim=1) @ normalize(k, dim=1).T).softmax(1)
            parts.append((maps @ v).T)
    return torch.stack(parts).unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("width", [2, 16, 18, 48, 80])
@pytest.mark.parametrize("tokens", [1, 2, 17, 49, 196])
def test_it_equals_the_formula(tokens: int, width: int, dtype: torch.dtype) -> None:
    heads = 3
    qkv, temperature = drawn(2, tokens, 3 * heads * width, dtype=dtype), torch.tensor([0.1, 1.0, 9.0])
    got, want = covariance_attention(qkv, heads, temperature), by_heads(qkv, heads, temperature)
    assert got.dtype == dtype and off(got, want) < 3 * CLOSE[dtype]


def test_channels_of_zeros_and_no_tokens(dtype: torch.dtype) -> None:
    qkv = drawn(1, 9, 3 * 8, dtype=dtype)
    qkv[..., 0] = qkv[..., 9] = 0  # a query channel and a key channel without length
    assert off(covariance_attention(qkv, 1, torch.ones(1)), by_heads(qkv, 1, torch.ones(1))) < 3 * CLOSE[dtype]
    assert covariance_attention(qkv[:, :0], 1, torch.ones(1)).shape == (1, 0, 8)


def test_threads_do_not_change_the_result(dtype: torch.dtype) -> None:
    qkv = drawn(3, 30, 3 * 32, dtype=dtype)
    one, three = (with_threads(lambda: covariance_attention(qkv, 4, torch.ones(4)), count) for count in (1, 3))
    assert torch.equal(one, three)
