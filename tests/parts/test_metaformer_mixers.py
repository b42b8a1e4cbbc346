"""Mixers, activations and the block of the MetaFormer baselines, each against loops, with gradients."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.activations import SquaredReLU, StarReLU
from vitrail.parts.blocks import Block, ResScaleBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.norms import ScaledGroupNorm, TokenGroupNorm
from vitrail.parts.token_mixers.identity import IdentityMixing
from vitrail.parts.token_mixers.random_mixing import RandomMixing
from vitrail.parts.token_mixers.separable_convolution import SeparableConvolution


def separable_loop(m: SeparableConvolution, x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Convolve cell by cell and channel by channel."""
    hidden = m.act.scale * (x @ m.expand.weight.T).clamp(min=0) ** 2 + m.act.bias
    cells, reach = grid.cells(hidden), m.depthwise.kernel_size[0] // 2
    rows = []
    for y in range(grid.h):
        for u in range(grid.w):
            total = torch.zeros_like(cells[:, 0, 0])
            for v in range(max(y - reach, 0), min(y + reach + 1, grid.h)):
                for w in range(max(u - reach, 0), min(u + reach + 1, grid.w)):
                    total = total + m.depthwise.weight[:, 0, v - y + reach, w - u + reach] * cells[:, v, w]
            rows.append(total)
    return torch.stack(rows, dim=1) @ m.project.weight.T


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2), (11, 9)])
def test_separable_convolution_against_a_loop(size):
    grid, m = Grid(*size), SeparableConvolution(3).double()
    nn.init.normal_(m.depthwise.weight)
    nn.init.constant_(m.act.bias, 0.3)
    x = torch.randn(2, grid.tokens, 3, dtype=torch.double, requires_grad=True)
    inputs = [x, *m.parameters()]
    got, want = m(x, grid), separable_loop(m, x, grid)
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((want * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_random_mixing_is_a_weighted_mean_with_fixed_weights():
    m, x = RandomMixing(Grid(2, 3)), torch.randn(2, 6, 4)
    got = m(x, Grid(2, 3))
    for n in range(6):
        torch.testing.assert_close(got[:, n], sum(m.matrix[n, j] * x[:, j] for j in range(6)))
    torch.testing.assert_close(m.matrix.sum(1), torch.ones(6))
    assert not list(m.parameters()) and list(m.state_dict()) == ["matrix"]
    with pytest.raises(VitrailError, match="grid of 2 x 3 and the image gives 3 x 2"):
        m(x, Grid(3, 2))


def test_identity_mixing_mixes_nothing():
    x = torch.randn(2, 6, 4)
    assert IdentityMixing()(x, Grid(2, 3)) is x


def test_star_relu_with_unit_scale_is_squared_relu():
    x = torch.randn(50)
    torch.testing.assert_close(StarReLU()(x), SquaredReLU()(x))
    torch.testing.assert_close(SquaredReLU()(x), torch.tensor([max(v, 0.0) ** 2 for v in x.tolist()]))
    # The paper's scale and bias give mean 0 and variance 1 for a normal input.
    y = 0.8944 * SquaredReLU()(torch.randn(1_000_000, dtype=torch.double)) - 0.4472
    assert abs(y.mean()) < 5e-3 and abs(y.var() - 1) < 2e-2


def test_scaled_group_norm_is_group_norm_without_bias():
    m, x = ScaledGroupNorm(1, 4), torch.randn(2, 6, 4, dtype=torch.double, requires_grad=True)
    nn.init.normal_(m.weight)
    m = m.double()
    full = TokenGroupNorm(1, 4, eps=1e-6).double()
    full.load_state_dict({"weight": m.weight, "bias": torch.zeros(4)})
    torch.testing.assert_close(m(x), full(x))
    assert gradcheck(lambda x, w: m(x), (x, m.weight))


def test_res_scale_block_scales_the_shortcut():
    def parts():
        torch.manual_seed(1)
        return [nn.LayerNorm(4), IdentityMixing(), nn.LayerNorm(4), MLP(4, 8, StarReLU(), bias=False)]

    block, plain, x, grid = ResScaleBlock(4, *parts()), Block(*parts()), torch.randn(2, 6, 4), Grid(2, 3)
    torch.testing.assert_close(block(x, grid), plain(x, grid))  # factors start at 1
    nn.init.constant_(block.res_scale1.gamma, 2.0)
    nn.init.constant_(block.res_scale2.gamma, 3.0)
    inner = 2 * x + block.norm1(x)
    torch.testing.assert_close(block(x, grid), 3 * inner + block.channel_mixer(block.norm2(inner), grid))
