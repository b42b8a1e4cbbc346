"""Patches and squares as rows of a product: every side, cut off or not, against convolution and LayerNorm in fp64."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, layer_norm, linear, pad

from closeness import CLOSE, off, steps_off
from vitrail.native.norms import LaneNorm
from vitrail.native.patches import embed_patches, merge_patches
from vitrail.native.products import pack_linear
from vitrail.native.residual import RESIDUAL


@pytest.mark.parametrize("size", [1, 3, 4, 16])
@pytest.mark.parametrize("sides", [(16, 48), (17, 50), (5, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_a_strided_convolution(
    size: int, sides: tuple[int, int], channels: int, dtype: torch.dtype
) -> None:
    images = torch.randn(2, channels, *sides)
    filters, bias = torch.randn(20, channels, size, size).to(dtype), torch.randn(20)
    whole = pad(images.to(dtype).double(), (0, -sides[1] % size, 0, -sides[0] % size))
    want = conv2d(whole, filters.double(), bias.double(), size).permute(0, 2, 3, 1)
    flat = filters.float().flatten(1)
    packed = pack_linear(pad(flat, (0, flat.shape[1] % 2)), bias, dtype)
    assert steps_off(embed_patches(images, size, packed), want) < 2
    norm = nn.LayerNorm(20, eps=1e-3)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    normed = layer_norm(want, (20,), norm.weight.double(), norm.bias.double(), 1e-3)
    assert steps_off(embed_patches(images, size, packed, LaneNorm.of(norm)), normed) < 2


@pytest.mark.parametrize("sides", [(2, 2), (7, 4), (5, 9)])
@pytest.mark.parametrize("channels", [2, 16, 24])
def test_squares_are_gathered_normalised_and_projected(
    sides: tuple[int, int], channels: int, dtype: torch.dtype
) -> None:
    cells = (torch.randn(2, *sides, channels) + 1).to(RESIDUAL[dtype])
    weight, bias = torch.randn(10, 4 * channels).to(dtype), torch.randn(10)
    whole = pad(cells.double(), (0, 0, 0, sides[1] % 2, 0, sides[0] % 2))
    squares = torch.cat([whole[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=3)
    want = linear(layer_norm(squares, (4 * channels,), eps=1e-5), weight.double(), bias.double())
    got = merge_patches(cells, 2, pack_linear(weight.float(), bias, dtype), 1e-5)
    assert got.dtype == RESIDUAL[dtype] and off(got, want) < 2 * CLOSE[dtype]
