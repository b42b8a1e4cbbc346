"""What is done to rows between products, against its formula in fp64, where it is easy to get wrong."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu as exact_gelu
from torch.nn.functional import layer_norm

from closeness import with_threads
from vitrail.native.rows import gelu, gelu_back_, norm, norm_again, norm_back, rejoin, rejoin_back

NEAR = {torch.float32: 4e-7, torch.bfloat16: 4e-3}


def test_gelu_and_its_slope_are_right_from_end_to_end(dtype):
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0, 1e-38, -1e-38])]).to(dtype)[:, None]
    bias, into = torch.zeros(1), torch.ones_like(x)
    wide = x.double().requires_grad_()
    want = exact_gelu(wide)
    (slope,) = torch.autograd.grad(want.sum(), [wide])
    y, into_bias = gelu_back_(x, bias, into)
    assert torch.equal(y, gelu(x, bias))
    error = NEAR[dtype]
    assert ((y.double() - want).abs() <= error * want.abs().clamp(min=1)).all()
    assert ((into.double() - slope).abs() <= 2 * error * slope.abs().clamp(min=1)).all()
    assert abs(into_bias.item() - slope.sum().item()) < 2 * error * len(x)


@pytest.mark.parametrize("channels", [1, 3, 16, 33, 96])
def test_a_mean_far_from_zero_costs_no_digits(channels):
    x = torch.randn(700, channels) + 1000
    weight, bias = torch.randn(channels), torch.randn(channels)
    wide = x.double().requires_grad_()
    want = layer_norm(wide, (channels,), weight.double(), bias.double(), 1e-5)
    y, moments = norm(x, weight, bias, 1e-5, torch.float32)
    assert (y.double() - want).abs().max() < 3e-3  # of 1000 fp32 keeps 6e-5, and where C is 3 deviations are small
    assert torch.equal(norm_again(x, weight, bias, moments, torch.float32), y)
    into = torch.randn_like(x)
    got = norm_back(x, weight, moments, into, past=None)[0]
    if channels > 3:
        (exactly,) = torch.autograd.grad(want, [wide], into.double())
        assert ((got.double() - exactly).norm() / exactly.norm()) < 1e-3


def test_what_comes_past_the_norm_is_added_and_sums_have_every_row(dtype):
    x, into, past = (torch.randn(1537, 40).to(dtype) for _ in range(3))  # three chunks and a row
    weight, bias = torch.randn(40), torch.randn(40)
    _, moments = norm(x, weight, bias, 1e-5, dtype)
    alone, _, _ = norm_back(x, weight, moments, into, None)
    both, into_weight, into_bias = norm_back(x, weight, moments, into, past)
    torch.testing.assert_close(both.float(), alone.float() + past.float(), rtol=2 * NEAR[dtype], atol=4 * NEAR[dtype])
    z = layer_norm(x.double(), (40,))
    torch.testing.assert_close(into_weight.double(), (into.double() * z).sum(0), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(into_bias.double(), into.double().sum(0), rtol=1e-4, atol=1e-3)


def test_samples_are_joined_by_their_own_factor(dtype):
    branch, past = torch.randn(6, 5).to(dtype), torch.randn(6, 5).to(dtype)
    bias, keep = torch.randn(5), torch.tensor([0.0, 2.0, 0.5])
    factors = keep.repeat_interleave(2)[:, None]
    got = rejoin(branch, bias, keep, past)
    torch.testing.assert_close(got.float(), past.float() + factors * (branch.float() + bias), rtol=8e-3, atol=1e-2)
    into_branch, into_bias = rejoin_back(past, keep, dtype)
    torch.testing.assert_close(into_branch.float(), factors * past.float(), rtol=8e-3, atol=1e-6)
    torch.testing.assert_close(into_bias, (factors * past.float()).sum(0), rtol=1e-5, atol=1e-5)
    same, _ = rejoin_back(past, None, dtype)
    assert same is past  # nothing is copied where nothing changes


def test_threads_do_not_change_a_sum(dtype):
    x, into = torch.randn(5000, 24).to(dtype), torch.randn(5000, 24).to(dtype)
    weight, bias = torch.randn(24), torch.randn(24)

    def sums() -> list[Tensor]:
        _, moments = norm(x, weight, bias, 1e-5, dtype)
        hidden = into.clone()
        return [*norm_back(x, weight, moments, into, x), *gelu_back_(x, bias, hidden), rejoin_back(x, None, dtype)[1]]

    assert all(torch.equal(a, b) for a, b in zip(sums(), with_threads(sums), strict=True))
