"""Group normalisation: over whom it takes the mean, and how many digits it keeps."""

import pytest
import torch

from vitrail.parts.norms import GroupNormReLU, MapGroupNorm, TokenGroupNorm


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_tokens_share_mean_and_variance_within_a_group(groups):
    norm = TokenGroupNorm(groups, 6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 6, dtype=torch.double) + 3
    got = norm(x)
    for b in range(2):
        for g in range(groups):
            channels = slice(g * 6 // groups, (g + 1) * 6 // groups)
            values = x[b, :, channels]
            mean = values.sum() / values.numel()
            variance = (values - mean).square().sum() / values.numel()
            want = (values - mean) / (variance + 1e-5).sqrt() * norm.weight[channels] + norm.bias[channels]
            torch.testing.assert_close(got[b, :, channels], want)


@pytest.mark.parametrize("kind", [TokenGroupNorm, GroupNormReLU])
def test_the_gradient_is_that_of_the_formula(kind):
    norm = kind(2, 6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    shape = (2, 5, 6) if kind is TokenGroupNorm else (2, 6, 2, 3)
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)

    def of(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(of, (x, norm.weight, norm.bias))


def test_the_gradient_in_bfloat16_is_that_of_pytorch_in_fp32():
    norm, plain = GroupNormReLU(4, 16).bfloat16(), torch.nn.GroupNorm(4, 16)
    cells = torch.randn(3, 16, 7, 7).bfloat16().contiguous(memory_format=torch.channels_last)
    slope = torch.randn_like(cells)
    got, want = cells.clone().requires_grad_(), cells.float().requires_grad_()
    norm(got).backward(slope)
    plain(want).relu().backward(slope.float())
    for ours, theirs in (
        (got.grad, want.grad),
        (norm.weight.grad, plain.weight.grad),
        (norm.bias.grad, plain.bias.grad),
    ):
        assert (ours.float() - theirs).norm() / theirs.norm() < 0.02


def test_group_norm_differs_from_layer_norm():
    x = torch.randn(1, 4, 8)
    assert not torch.allclose(TokenGroupNorm(1, 8)(x), torch.nn.LayerNorm(8)(x), atol=1e-2)


@pytest.mark.parametrize("offset", [0.0, 10.0, 300.0])
def test_a_large_mean_loses_no_precision(offset):
    norm = MapGroupNorm(4, 16)
    cells = (torch.randn(2, 16, 9, 9) + offset).contiguous(memory_format=torch.channels_last)
    want = norm.double()(cells.double())
    got = norm.float()(cells)
    assert (got.double() - want).norm() / want.norm() < 5e-6 * max(1.0, offset / 100)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_relu_follows_the_norm():
    norm, cells = GroupNormReLU(2, 4), torch.randn(2, 4, 3, 3)
    before = cells.clone()
    torch.testing.assert_close(norm(cells), torch.nn.GroupNorm(2, 4)(cells).relu())
    assert torch.equal(cells, before)  # in place on its own result, never on its input
