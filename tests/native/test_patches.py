"""Patches and squares as rows of a product: every side, cut off or not, against convolution and LayerNorm in fp64."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, layer_norm, linear, pad

from closeness import CLOSE, off, steps_off
from vitrail.fused.patches import FusedPatchEmbedding, as_bytes
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import pack_linear
from vitrail.native.norms import LaneNorm
from vitrail.native.patches import embed_patches, merge_patches
from vitrail.parts.embeddings import PatchEmbedding
from vitrail.preprocess import Preprocess


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


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1])
def test_nan_propagates(bits: int, dtype: torch.dtype) -> None:
    """Rounding adds to the bits, which makes infinity of a NaN's smallest ones and zero of its largest."""
    images = torch.ones(1, 1, 4, 20)
    images[0, 0, 0, [1, 18]] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)  # within 16 columns, and after
    packed = pack_linear(torch.eye(16), torch.zeros(16), dtype)
    rows = embed_patches(images, 4, packed)[0, 0]
    assert rows.isnan().any(1).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("sides", [(16, 32), (9, 14)])
def test_uint8_images_are_normalised(sides: tuple[int, int], dtype: torch.dtype) -> None:
    """Filters that bf16 holds after they are divided: then nothing but the answer is rounded."""
    preprocess = Preprocess()
    pixels, mean, std = as_bytes(preprocess), torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    images = ((torch.randint(0, 256, (2, 3, *sides)) / 255).movedim(1, 3) - mean).div(std).movedim(3, 1)
    layer = PatchEmbedding(3, 20, 4).requires_grad_(False)
    assert layer.proj.bias is not None
    layer.proj.weight.copy_(torch.randn(20, 3, 4, 4).to(dtype).float() * pixels.factor[:, None, None] / 128)
    want = conv2d(pad(images, (0, -sides[1] % 4, 0, -sides[0] % 4)).double(), layer.proj.weight.double(), stride=4)
    want = (want + layer.proj.bias.double()[:, None, None]).flatten(2).transpose(1, 2)
    stored = RESIDUAL[dtype]
    assert steps_off(FusedPatchEmbedding(layer, dtype, preprocess)(images)[0], want) < 1
    if dtype != stored:
        assert steps_off(FusedPatchEmbedding(layer, dtype)(images)[0], want) > 2


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
