"""Cross-covariance attention, local interaction, Fourier positions and XCiT's blocks, against loops."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, gelu, layer_norm

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.conv_patches import ConvPatches
from vitrail.parts.fourier_position import FourierPosition
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.parts.token_mixers.local_patch_interaction import LocalPatchInteraction
from vitrail.parts.xcit_blocks import ClassBlock, PrefixNormClassBlock


@pytest.mark.parametrize("tokens", [1, 7, 15])
def test_channel_by_channel_with_gradients(tokens):
    mixer = CrossCovarianceAttention(6, num_heads=2).double()
    nn.init.uniform_(mixer.temperature, 0.5, 2)
    x = torch.randn(2, tokens, 6, dtype=torch.double, requires_grad=True)
    got, want = mixer(x, Grid(1, tokens)), []
    for b in range(2):
        q, k, v = mixer.qkv(x[b]).view(tokens, 3, 2, 3).unbind(1)
        columns = []
        for h in range(2):
            for c in range(3):
                units = [k[:, h, e] / k[:, h, e].norm() for e in range(3)]
                scores = [mixer.temperature[h, 0, 0] * (q[:, h, c] / q[:, h, c].norm()) @ unit for unit in units]
                weights = torch.stack(scores).softmax(0)
                columns.append(sum(weights[e] * v[:, h, e] for e in range(3)))
        want.append(mixer.proj(torch.stack(columns, dim=-1)))
    torch.testing.assert_close(got, torch.stack(want))
    inputs, seed = (x, *mixer.parameters()), torch.randn_like(got)
    expected = torch.autograd.grad(torch.stack(want), inputs, seed)
    for a, b in zip(torch.autograd.grad(got, inputs, seed), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_cross_covariance_commutes_with_permutation():
    mixer, x, order = CrossCovarianceAttention(8, 2), torch.randn(1, 6, 8), torch.randperm(6)
    torch.testing.assert_close(mixer(x[:, order], Grid(2, 3)), mixer(x, Grid(2, 3))[:, order])


@pytest.mark.parametrize("grid", [Grid(1, 1), Grid(3, 5)])
def test_local_interaction_channel_by_channel(grid):
    mixer = LocalPatchInteraction(4).double().eval()
    mixer.norm.running_mean.normal_(), mixer.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, grid.tokens, 4, dtype=torch.double, requires_grad=True)
    got, maps = mixer(x, grid), []
    for c in range(4):
        cells = grid.cells(x)[..., c][:, None]
        cells = gelu(conv2d(cells, mixer.conv1.weight[c : c + 1], mixer.conv1.bias[c : c + 1], padding=1))
        cells = (cells - mixer.norm.running_mean[c]) / (mixer.norm.running_var[c] + mixer.norm.eps).sqrt()
        maps.append(conv2d(cells, mixer.conv2.weight[c : c + 1], mixer.conv2.bias[c : c + 1], padding=1))
    want = torch.cat(maps, dim=1).flatten(2).mT
    torch.testing.assert_close(got, want)
    seed = torch.randn_like(got)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, seed)[0] for out in (got, want)))


def test_fourier_positions_cell_by_cell():
    step, grid = FourierPosition(6, features=8), Grid(3, 4)
    got = step(torch.zeros(1, 12, 6), grid)[0]
    for y in range(3):
        for x in range(4):
            waves = []
            for place, count in ((y + 1, 3), (x + 1, 4)):
                for i in range(8):
                    angle = 2 * math.pi * place / count / 10000 ** (2 * (i // 2) / 8)
                    waves.append(math.cos(angle) if i % 2 else math.sin(angle))
            torch.testing.assert_close(got[0, 4 * y + x], step.proj(torch.tensor(waves)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [ClassBlock, PrefixNormClassBlock])
def test_class_blocks_scale_and_double_the_cells(kind):
    parts = (nn.LayerNorm(6), ClassAttention(6, 2), nn.LayerNorm(6), MLP(6, 12))
    block, grid = kind(*parts, 0.0, LayerScale(6, 0.5), LayerScale(6, 0.25)), Grid(2, 3, prefix=1)
    x = torch.randn(2, 7, 6)
    got = block(x, grid)
    u = layer_norm(x, (6,))
    cells = x[:, 1:] + 0.5 * u[:, 1:]
    want = layer_norm(cells, (6,)) if kind is ClassBlock else cells
    torch.testing.assert_close(got[:, 1:], 2 * want)
    prefix = layer_norm(x[:, :1] + 0.5 * parts[1](u, grid)[:, :1], (6,))
    torch.testing.assert_close(got[:, :1], prefix + 0.25 * parts[3](prefix, grid))


@pytest.mark.parametrize(("size", "grid"), [((64, 48), (4, 3)), ((33, 5), (3, 1)), ((1, 1), (1, 1))])
def test_patches_halve_rounded_up(size, grid):
    assert ConvPatches(3, 16, patch_size=16).eval()(torch.zeros(1, 3, *size))[1] == Grid(*grid)


@pytest.mark.parametrize("patch_size", [1, 12])
def test_patches_that_are_no_power_of_two_are_refused(patch_size):
    with pytest.raises(VitrailError, match=f"a patch_size of 2, 4, 8, 16 or 32, got {patch_size}"):
        ConvPatches(3, 16, patch_size)
