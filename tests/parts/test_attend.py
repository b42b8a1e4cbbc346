"""Softmax attention: every backend against loops, and unsupported inputs."""

import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.kernels.attention import attention, reference
from vitrail.kernels.attention.reference import attention_map
from vitrail.kernels.dispatch import Backend, Op
from vitrail.parts.attend import merge_heads, split_heads


@pytest.mark.parametrize("tokens", [1, 7, 49, 63])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", [backend.name for backend in attention.backends])
def test_each_backend_against_the_specification(tokens, masked, name):
    q, k, v = (torch.randn(2, 3, 2, tokens, 8, dtype=torch.double, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, tokens, tokens, dtype=torch.double)
    if masked:
        bias = bias.masked_fill(torch.rand_like(bias).gt(0.5).logical_and(~torch.eye(tokens).bool()), -torch.inf)
    backend = next(b for b in attention.backends if b.name == name)
    got, want = backend.run(q, k, v, bias), reference(q, k, v, bias)
    torch.testing.assert_close(got, want)
    seed = torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(got, (q, k, v), seed), torch.autograd.grad(want, (q, k, v), seed), strict=True):
        torch.testing.assert_close(a, b)


def test_the_specification_entry_by_entry():
    q, k, v = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5, 2)
    bias = torch.randn(3, 5)
    for n in range(3):
        weights = [torch.exp((q[n] @ k[m]) / 2 + bias[n, m]) for m in range(5)]
        want = sum(w * v[m] for m, w in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(reference(q[None], k[None], v[None], bias)[0, n], want)


def test_rows_of_a_map_sum_to_one():
    maps = attention_map(torch.randn(2, 6, 4), torch.randn(2, 9, 4), torch.randn(6, 9))
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 6))


def test_an_unsupported_backend_gives_a_reason():
    whole, half = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4, dtype=torch.bfloat16)
    assert dict(attention.explain(whole, whole, whole, None)) == {"sdpa": None, "reference": None}
    assert "one dtype" in dict(attention.explain(whole, half, whole, None))["sdpa"]


def test_the_first_backend_that_does_not_refuse_runs():
    even = Backend("even", lambda n: "even", lambda n: "odd number" if n % 2 else None)
    small = Backend("small", lambda n: "small", lambda n: "not below 10" if n >= 10 else None)
    kernel = Op("toy", [even, small])
    assert [kernel(n) for n in (2, 3)] == ["even", "small"]
    with pytest.raises(VitrailError, match=r"'toy'.*even: odd number; small: not below 10"):
        kernel(11)


def test_heads_are_split_in_the_order_of_queries_keys_values():
    qkv = torch.arange(24.0).view(1, 1, 24)
    q, k, v = split_heads(qkv, num_heads=2)
    assert q[0, 1, 0].tolist() == [4, 5, 6, 7]
    assert k[0, 0, 0].tolist() == [8, 9, 10, 11]
    assert v[0, 1, 0].tolist() == [20, 21, 22, 23]
    assert torch.equal(merge_heads(v), qkv[..., 16:])
