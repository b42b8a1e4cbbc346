"""Depthwise convolution and global response norm against loops, with gradients."""

import pytest
import torch
from torch import nn

from vitrail.grid import Grid
from vitrail.parts.blocks import ConvNeXtBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.global_response_norm import GlobalResponseNorm
from vitrail.parts.token_mixers.depthwise_convolution import DepthwiseConvolution


def same_with_gradients(got, want, inputs):
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(got)
    ours, loops = (torch.autograd.grad((y * weight).sum(), inputs) for y in (got, want))
    for a, b in zip(ours, loops, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 2), (11, 9)])
def test_depthwise_convolution_against_a_loop(size):
    grid, m = Grid(*size), DepthwiseConvolution(3).double()
    nn.init.normal_(m.conv.weight)
    nn.init.normal_(m.conv.bias)
    x = torch.randn(2, grid.tokens, 3, dtype=torch.double, requires_grad=True)
    cells, want = grid.cells(x), []
    for y in range(grid.h):
        for u in range(grid.w):
            total = m.conv.bias
            for v in range(max(y - 3, 0), min(y + 4, grid.h)):
                for w in range(max(u - 3, 0), min(u + 4, grid.w)):
                    total = total + m.conv.weight[:, 0, v - y + 3, w - u + 3] * cells[:, v, w]
            want.append(total)
    same_with_gradients(m(x, grid), torch.stack(want, dim=1), [x, *m.parameters()])


@pytest.mark.parametrize("tokens", [1, 7, 12])
def test_global_response_norm_against_a_loop(tokens):
    m = GlobalResponseNorm(5).double()
    x = torch.randn(2, tokens, 5, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(m(x), x)  # it starts as the identity
    for parameter in m.parameters():
        nn.init.normal_(parameter)
    images = []
    for image in x:
        response = torch.stack([sum(v * v for v in channel) ** 0.5 for channel in image.T])
        images.append(image + m.weight * image * (response / (response.mean() + 1e-6)) + m.bias)
    same_with_gradients(m(x), torch.stack(images), [x, *m.parameters()])


def test_convnext_block_has_one_branch():
    block = ConvNeXtBlock(DepthwiseConvolution(4), nn.LayerNorm(4), MLP(4, 8))
    x, grid = torch.randn(2, 6, 4), Grid(2, 3)
    want = x + block.channel_mixer(block.norm(block.token_mixer(x, grid)), grid)
    torch.testing.assert_close(block(x, grid), want)
