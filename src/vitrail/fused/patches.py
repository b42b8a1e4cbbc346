"""Fused patch embedding and patch merging, for CPU inference."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.fused.convolution import check_conv
from vitrail.fused.folding import NormAffine
from vitrail.fused.unsupported import NotConverted, Seats, check_parts
from vitrail.grid import Grid, to_grid
from vitrail.native.convolution import convolve, pack_convolution
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import pack_linear
from vitrail.native.norms import LaneNorm
from vitrail.native.patches import Pixels, embed_patches, merge_patches
from vitrail.parts.embeddings import MapPatches, PatchEmbedding
from vitrail.parts.merging import PatchMerging
from vitrail.preprocess import Preprocess
from vitrail.shapes import Image, Tokens

PATCH_SEATS: Seats = {"proj": (nn.Conv2d,), "norm": (nn.Identity, nn.LayerNorm)}


def as_bytes(preprocess: Preprocess) -> Pixels:
    """Return the affine map from normalised pixels back to integers, which bf16 represents exactly.

    A byte u comes as x = (u / 255 - mean) / std, and 255 std x + 255 mean = u. The integer nearest to 255 mean is
    subtracted again, so that values stay as small as those of x.

    Example:
        >>> pixels = as_bytes(Preprocess())
        >>> x = (torch.tensor([0.0, 124.0, 255.0]) / 255 - 0.485) / 0.229
        >>> (x * pixels.factor[0] + pixels.shift[0]).round().int().tolist()
        [-124, 0, 131]
    """
    mean, std = (torch.tensor(of, dtype=torch.float32, device="cpu") * 255 for of in (preprocess.mean, preprocess.std))
    return Pixels(std, mean - mean.round())


class FusedPatchEmbedding(nn.Module):
    """Patches of fp32 images, in any compute dtype; below fp32, pixels are mapped back to integers."""

    def __init__(self, layer: PatchEmbedding, dtype: torch.dtype, preprocess: Preprocess | None = None):
        super().__init__()
        filters = layer.proj.weight.detach().float()  # (out, C, p, p)
        bias = None if layer.proj.bias is None else layer.proj.bias.detach().float()
        channels = filters.shape[1]
        self.pixels = Pixels.as_they_are(channels)
        if dtype != torch.float32 and preprocess is not None and preprocess.channels == channels:
            self.pixels = as_bytes(preprocess)
            filters = filters / self.pixels.factor[:, None, None]
            moved = (filters.sum((2, 3)) * self.pixels.shift).sum(1)
            bias = -moved if bias is None else bias - moved
        filters = filters.flatten(1)
        self.packed = pack_linear(pad(filters, (0, filters.shape[1] % 2)), bias, dtype)
        self.patch_size, self.norm = layer.patch_size, _norm_of(layer)

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Cut and project."""
        return to_grid(embed_patches(images, self.patch_size, self.packed, self.norm, self.pixels))


class FusedPatchMerging(nn.Module):
    """Four neighbours become one token: gathered, normalised and projected in one call."""

    def __init__(self, layer: PatchMerging, dtype: torch.dtype):
        super().__init__()
        affine = NormAffine.of(layer.norm, layer.reduction.in_features)
        assert affine.eps is not None
        weight, bias = affine.folded(layer.reduction)
        by_column = weight.unflatten(1, (2, 2, -1))  # (out, right, down, C), the authors' order
        self.eps = affine.eps
        self.packed = pack_linear(by_column.transpose(1, 2).flatten(1), bias, dtype)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Merge; the grid must have no prefix."""
        return to_grid(merge_patches(grid.cells(x), 2, self.packed, self.eps))


class FusedMapPatches(nn.Module):
    """Patches of a map of tokens, as one GEMM, then a norm or none."""

    def __init__(self, layer: PatchEmbedding, dtype: torch.dtype):
        super().__init__()
        bias = None if layer.proj.bias is None else layer.proj.bias.detach().float()
        self.patch_size, self.norm = layer.patch_size, _norm_of(layer)
        self.conv = pack_convolution(layer.proj.weight.detach().float(), bias, layer.patch_size, 0, dtype)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Cut and project; the grid must have no prefix."""
        cells = grid.cells(x).to(self.conv.product.dtype)
        cells = pad(cells, (0, 0, 0, -grid.w % self.patch_size, 0, -grid.h % self.patch_size))
        return to_grid(convolve(cells, self.conv, self.norm, RESIDUAL[cells.dtype]))


def fuse_patch_embedding(
    layer: PatchEmbedding, dtype: torch.dtype, preprocess: Preprocess | None = None
) -> FusedPatchEmbedding:
    """Return the fused patch embedding.

    Args:
        layer: layer to convert.
        dtype: compute dtype.
        preprocess: normalisation of the images, if known.

    Raises:
        NotConverted: its convolution is of another kind.
    """
    check_conv(layer.proj)
    return FusedPatchEmbedding(layer, dtype, preprocess)


def fuse_map_patches(layer: MapPatches, dtype: torch.dtype) -> FusedMapPatches:
    """Return the fused patches of a map.

    Raises:
        NotConverted: its convolution is of another kind.
    """
    check_parts(layer.patches, PATCH_SEATS)
    check_conv(layer.patches.proj)
    return FusedMapPatches(layer.patches, dtype)


def fuse_patch_merging(layer: PatchMerging, dtype: torch.dtype) -> FusedPatchMerging:
    """Return the fused patch merging.

    Raises:
        NotConverted: an odd number of channels in bf16.
    """
    if dtype == torch.bfloat16 and layer.reduction.in_features % 2:
        raise NotConverted(f"bf16 needs an even number of inputs, got {layer.reduction.in_features}")
    return FusedPatchMerging(layer, dtype)


def _norm_of(layer: PatchEmbedding) -> LaneNorm | None:
    return LaneNorm.of(layer.norm) if type(layer.norm) is nn.LayerNorm else None
