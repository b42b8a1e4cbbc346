"""Token mixers without windows, each against loops, with gradients in double precision."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.parts.token_mixers.window_attention import WindowAttention


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 2), (5, 6)])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_pooling_is_the_mean_of_neighbours_that_exist_less_the_cell(size, width):
    grid, x = Grid(*size), torch.randn(2, size[0] * size[1], 3)
    got = grid.cells(Pooling(width)(x, grid))
    cells, reach = grid.cells(x), width // 2
    for y in range(grid.h):
        for u in range(grid.w):
            around = cells[:, max(y - reach, 0) : y + reach + 1, max(u - reach, 0) : u + reach + 1]
            torch.testing.assert_close(got[:, y, u], around.mean(dim=(1, 2)) - cells[:, y, u])


def test_pooling_leaves_a_constant_at_zero_up_to_the_border():
    assert Pooling()(torch.full((1, 20, 2), 3.0), Grid(4, 5)).abs().max() < 1e-6


def test_token_mlp_mixes_places_and_not_channels():
    mixer, x = TokenMLP(Grid(2, 3), hidden=5), torch.randn(2, 6, 4)
    got = mixer(x, Grid(2, 3))
    fc1, fc2 = mixer.mlp.fc1, mixer.mlp.fc2
    for b in range(2):
        for c in range(4):
            inner = [sum(fc1.weight[i, n] * x[b, n, c] for n in range(6)) + fc1.bias[i] for i in range(5)]
            inner = [v * 0.5 * (1 + math.erf(v.item() / 2**0.5)) for v in inner]  # the exact GELU
            want = [sum(fc2.weight[n, i] * inner[i] for i in range(5)) + fc2.bias[n] for n in range(6)]
            torch.testing.assert_close(got[b, :, c], torch.stack(want))


@pytest.mark.parametrize("grid", [Grid(3, 2), Grid(1, 6), Grid(2, 4), Grid(2, 3, prefix=1)])
def test_token_mlp_refuses_every_other_grid(grid):
    with pytest.raises(VitrailError, match="grid of 2 x 3"):
        TokenMLP(Grid(2, 3), hidden=5)(torch.zeros(1, grid.tokens, 4), grid)


def test_self_attention_query_by_query():
    mixer, grid = SelfAttention(6, num_heads=2), Grid(2, 2, prefix=1)
    torch.nn.init.normal_(mixer.qkv.bias)
    x = torch.randn(2, 5, 6)
    got = mixer(x, grid)
    for b in range(2):
        q, k, v = mixer.qkv(x[b]).view(5, 3, 2, 3).unbind(1)  # (N, heads, d) each
        for n in range(5):
            heads = []
            for h in range(2):
                scores = torch.stack([(q[n, h] * k[m, h]).sum() / 3**0.5 for m in range(5)])
                weights = scores.exp() / scores.exp().sum()
                heads.append(sum(weights[m] * v[m, h] for m in range(5)))
            torch.testing.assert_close(got[b, n], mixer.proj(torch.cat(heads)))


def test_self_attention_is_permutation_equivariant():
    mixer, x = SelfAttention(8, num_heads=2), torch.randn(1, 6, 8)
    order = torch.randperm(6)
    torch.testing.assert_close(mixer(x[:, order], Grid(2, 3)), mixer(x, Grid(2, 3))[:, order])


@pytest.mark.parametrize("mixer", [SelfAttention, lambda dim, heads: WindowAttention(dim, heads, window_size=4)])
@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_divide_the_channels_are_refused(mixer, heads):
    with pytest.raises(VitrailError, match=r"12 channels evenly. These can: 1, 2, 3, 4, 6, 12\."):
        mixer(12, heads)


@pytest.mark.parametrize(
    "mixer", [SelfAttention(4, 2), Pooling(), TokenMLP(Grid(2, 3), 3)], ids=lambda m: type(m).__name__
)
def test_gradients(mixer):
    mixer = mixer.double()
    x = torch.randn(1, 6, 4, dtype=torch.double, requires_grad=True)
    assert gradcheck(lambda x, *_: mixer(x, Grid(2, 3)), (x, *mixer.parameters()))
