"""Branches that learn, piece by piece: formulas in fp64, and whole numbers where a row could be lost."""

from typing import Any

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from closeness import drawn, off, steps_off, with_threads
from vitrail.native.fused_train import (
    Inner,
    Normed,
    linear_residual,
    linear_residual_backward,
    mlp,
    mlp_backward,
    norm_linear,
    norm_linear_backward,
)

NEAR = {torch.float32: 4e-7, torch.bfloat16: 4e-3}
MANY = 7001  # rows: more chunks than are woven at a time, and an odd one


def test_gelu_and_its_derivative_over_the_full_range(dtype):
    """One row that learns and one that does not: then a bias's gradient is a slope, and a weight's is GELU itself."""
    h = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0, 1e-38, -1e-38, 0.5])]).to(dtype)
    hidden = torch.stack([h, torch.ones_like(h)])
    grad_y = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=dtype)
    second = torch.stack([torch.ones(len(h)), torch.zeros(len(h))])
    inner = Inner(torch.zeros(len(h), 2), torch.zeros(len(h)), second, torch.zeros(2))
    normed = Normed(torch.ones(2), torch.zeros(2), torch.zeros(2, 2, dtype=dtype), torch.ones(2))
    into = mlp_backward(grad_y, normed, hidden, inner, None, (True, True))[3]
    wide = h.double().requires_grad_()
    want = gelu(wide)
    (slope,) = torch.autograd.grad(want.sum(), [wide])
    error = NEAR[dtype]
    assert ((into.second[0].double() - want).abs() <= error * want.abs().clamp(min=1)).all()
    assert not into.second[1].any()
    assert ((into.bias1.double() - slope).abs() <= 2 * error * slope.abs().clamp(min=1)).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 395, MANY])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 48), (50, 62), (200, 34)])
def test_weight_gradients_are_exact_on_integers(dtype, rows, outputs, inputs):
    """Sums of small whole numbers are exact in fp32 in any order, so not a row may be lost or taken twice."""
    into, x = (torch.randint(-4, 5, (rows, width)) for width in (outputs, inputs))
    layer, keep = torch.randint(-2, 3, (outputs, inputs)), torch.full((1,), 2.0)
    grad_x, grad_layer, grad_offset = linear_residual_backward(into.to(dtype), layer.float(), keep, x.to(dtype), True)
    assert torch.equal(grad_layer, (2 * into.T @ x).float())
    assert torch.equal(grad_offset, (2 * into.sum(0)).float())
    assert torch.equal(grad_x, (2 * into @ layer).to(dtype))
    assert linear_residual_backward(into.to(dtype), layer.float(), keep, x.to(dtype), False)[1] is None


@pytest.mark.parametrize("channels", [6, 16, 34, 96])
def test_a_large_mean_loses_no_precision(channels):
    x = torch.randn(700, channels) + 1000
    weight, bias, residual = torch.randn(channels), torch.randn(channels), torch.zeros(700, channels)
    wide = x.double().requires_grad_()
    want = layer_norm(wide, (channels,), weight.double(), bias.double(), 1e-5)
    nothing = torch.zeros(channels)
    y, normed = norm_linear(x, weight, bias, 1e-5, torch.eye(channels), nothing, torch.float32, True)
    assert (y.double() - want).abs().max() < 5e-3  # of 1000 fp32 keeps 6e-5, and where C is small deviations may be
    into = torch.randn_like(x)
    got = norm_linear_backward(into, torch.eye(channels), normed, residual, False)[0]
    (exactly,) = torch.autograd.grad(want, [wide], into.double())
    assert off(got, exactly) < 1e-3


def test_residual_gradients_are_added_and_reductions_cover_every_row(dtype):
    x, into, residual = (drawn(MANY, width, dtype=dtype) for width in (40, 56, 40))
    weight, bias, layer, offset = torch.randn(40), torch.randn(40), drawn(56, 40, dtype=dtype).float(), torch.randn(56)
    y, normed = norm_linear(x, weight, bias, 1e-5, layer, offset, dtype, True)
    exact = [value.double().requires_grad_() for value in (x, weight, bias, layer, offset)]
    want = layer_norm(exact[0], (40,), exact[1], exact[2], 1e-5) @ exact[3].T + exact[4]
    assert steps_off(y, want) < 1
    grad_x, grad_layer, grad_offset, grad_weight, grad_bias = norm_linear_backward(into, layer, normed, residual, True)
    of_x, *of_weights = torch.autograd.grad(want, exact, into.double())
    assert steps_off(grad_x, of_x + residual) < 1
    grad_weights = [grad_weight, grad_bias, grad_layer, grad_offset]
    assert all(off(got, exactly) < 2 * NEAR[dtype] for got, exactly in zip(grad_weights, of_weights, strict=True))


def test_drop_path_scales_each_sample(dtype):
    x, residual, into = drawn(6, 8, dtype=dtype), drawn(6, 20, dtype=dtype), drawn(6, 20, dtype=dtype)
    layer, offset, keep = drawn(20, 8, dtype=dtype).float(), torch.randn(20), torch.tensor([0.0, 2.0, 0.5])
    factors = keep.repeat_interleave(2)[:, None]
    branch = x.double() @ layer.double().T + offset
    assert steps_off(linear_residual(x, layer, offset, keep, residual), residual + factors * branch) < 1
    grad_x, _, grad_offset = linear_residual_backward(into, layer, keep, x, False)
    assert steps_off(grad_x, factors * into.double() @ layer.double()) < 1.5
    torch.testing.assert_close(grad_offset, (factors * into.float()).sum(0), rtol=1e-5, atol=1e-5)
    assert torch.equal(linear_residual(x, layer, offset, keep, residual)[:2], residual[:2])


def test_frozen_branches_store_nothing(dtype):
    x, weight, bias = drawn(50, 32, dtype=dtype), torch.ones(32), torch.zeros(32)
    inner = Inner(torch.randn(64, 32), torch.randn(64), torch.randn(32, 64), torch.randn(32))
    learning, _, hidden = mlp(x, weight, bias, 1e-5, inner, None, dtype, True)
    y, normed, nothing = mlp(x, weight, bias, 1e-5, inner, None, dtype, False)
    assert torch.equal(y, learning) and hidden.shape == (50, 64)
    assert normed.z.numel() == normed.scale.numel() == nothing.numel() == 0


def test_threads_do_not_change_a_bit(dtype):
    x, into, residual = (drawn(MANY, width, dtype=dtype) for width in (24, 40, 24))
    weight, bias = torch.randn(24), torch.randn(24)
    layer, offset = torch.randn(40, 24), torch.randn(40)
    inner = Inner(layer, offset, torch.randn(24, 40), torch.randn(24))

    def all_of_it() -> list[Any]:
        y, normed = norm_linear(x, weight, bias, 1e-5, layer, offset, dtype, True)
        back = norm_linear_backward(into, layer, normed, residual, True)
        left = linear_residual(y, inner.second, inner.bias2, None, x)
        answer, around, hidden = mlp(x, weight, bias, 1e-5, inner, None, dtype, True)
        *found, inside = mlp_backward(residual, around, hidden, inner, None, (True, True))
        return [
            y,
            *back,
            left,
            *linear_residual_backward(residual, inner.second, None, y, True),
            answer,
            *found,
            *inside,
        ]

    found = zip(all_of_it(), with_threads(all_of_it), with_threads(all_of_it, 15), strict=True)
    assert all(torch.equal(alone, two) and torch.equal(alone, many) for alone, two, many in found)
