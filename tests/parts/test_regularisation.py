"""Branches that are dropped or scaled, and the block that they belong to."""

import pytest
import torch
from torch import nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.regularisation import DropPath, LayerScale, drop_path_rates
from vitrail.parts.token_mixers.pooling import Pooling


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drop_path_keeps_the_expectation_and_drops_whole_samples(rate):
    samples = 20_000
    got = DropPath(rate).train()(torch.ones(samples, 2, 3))
    kept = got[:, 0, 0] > 0
    assert torch.equal(got, kept[:, None, None] * torch.full((1, 2, 3), 1 / (1 - rate)))
    deviation = (rate * (1 - rate) / samples) ** 0.5
    assert abs(kept.double().mean().item() - (1 - rate)) < 5 * deviation


@pytest.mark.parametrize("module", [DropPath(0.5).eval(), DropPath(0.0).train()])
def test_drop_path_is_nothing_in_evaluation_or_at_rate_zero(module):
    x = torch.randn(3, 2)
    assert module(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_a_rate_that_drops_everything_is_refused(rate):
    with pytest.raises(VitrailError, match=r"below 1, got"):
        DropPath(rate)


@pytest.mark.parametrize("depth", [1, 2, 12])
def test_rates_grow_from_zero_in_equal_steps(depth):
    rates = drop_path_rates(0.3, depth)
    assert len(rates) == depth
    assert rates[0] == 0.0
    assert rates[1:] == pytest.approx([0.3 * i / (depth - 1) for i in range(1, depth)])


def test_layer_scale_multiplies_each_channel():
    scale, x = LayerScale(3, init=0.25), torch.randn(2, 4, 3)
    assert torch.equal(scale(x), x * 0.25)
    with torch.no_grad():
        scale.gamma.copy_(torch.tensor([1.0, 2.0, 3.0]))
    for c in range(3):
        assert torch.equal(scale(x)[..., c], x[..., c] * (c + 1))


def test_a_block_is_two_residual_branches():
    block = Block(nn.LayerNorm(4), Pooling(), nn.LayerNorm(4), MLP(4, 8), 0.5, LayerScale(4, 0.5), LayerScale(4, 2.0))
    grid, x = Grid(2, 3), torch.randn(2, 6, 4)
    y = x + 0.5 * block.token_mixer(block.norm1(x), grid)
    want = y + 2.0 * block.channel_mixer(block.norm2(y), grid)
    torch.testing.assert_close(block.eval()(x, grid), want)
