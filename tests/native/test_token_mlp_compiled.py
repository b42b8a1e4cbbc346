"""The compiled token MLP against its formula in fp64, for every remainder of tokens and channels."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm

from closeness import CLOSE, drawn, off, with_threads
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.norms import LaneNorm
from vitrail.native.token_mlp import TokenLayer, token_mlp


def a_layer(inputs: int, outputs: int, dtype: torch.dtype) -> nn.Linear:
    """Make a layer whose weights the precision holds exactly."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.to(dtype))
    return layer.requires_grad_(False)


def a_norm(channels: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(channels, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels))
        norm.bias.copy_(torch.randn(channels))
    return norm.requires_grad_(False)


@pytest.mark.parametrize("channels", [3, 16, 20, 64, 100, 130])
@pytest.mark.parametrize(("tokens", "hidden"), [(1, 3), (4, 6), (5, 7), (49, 24), (14, 130)])
def test_it_is_an_mlp_of_the_transpose(tokens, hidden, channels, dtype):
    x = drawn(2, tokens, channels, dtype=RESIDUAL[dtype]) * 2 + 1
    norm, first, second = a_norm(channels), a_layer(tokens, hidden, dtype), a_layer(hidden, tokens, dtype)
    z = layer_norm(x.double(), (channels,), norm.weight.double(), norm.bias.double(), norm.eps).transpose(1, 2)
    between = gelu(z @ first.weight.double().T + first.bias.double())
    want = x.double() + (between @ second.weight.double().T + second.bias.double()).transpose(1, 2)
    layers = TokenLayer.of(first, dtype), TokenLayer.of(second, dtype)
    assert off(token_mlp(x, LaneNorm.of(norm), *layers), want) < 1.5 * CLOSE[dtype]


def test_threads_do_not_change_the_output(dtype):
    x, norm = drawn(3, 20, 200, dtype=RESIDUAL[dtype]), LaneNorm.of(a_norm(200))
    layers = TokenLayer.of(a_layer(20, 30, dtype), dtype), TokenLayer.of(a_layer(30, 20, dtype), dtype)
    assert torch.equal(token_mlp(x, norm, *layers), with_threads(lambda: token_mlp(x, norm, *layers)))
