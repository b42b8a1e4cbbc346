"""Fused convolutions that make or merge tokens: one GEMM each, with the norm after it."""

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted, check_parts
from vitrail.grid import Grid, to_grid
from vitrail.native.convolution import PackedConvolution, convolve, pack_convolution
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.layer_norm import layer_norm
from vitrail.native.norms import LaneNorm
from vitrail.parts.embeddings import ConvTokenizer, OverlappingPatchEmbedding
from vitrail.parts.merging import ConvMerging, NormedConvMerging, PreNormConvMerging
from vitrail.shapes import Image, Tokens


class FusedConvMerging(nn.Module):
    """A strided convolution of tokens, then a norm or none."""

    def __init__(self, conv: PackedConvolution, norm: LaneNorm | None):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Merge; the grid must have no prefix."""
        return to_grid(convolve(grid.cells(x).to(self.conv.product.dtype), self.conv, self.norm, x.dtype))


class FusedPreNormConvMerging(nn.Module):
    """A norm of the tokens, then a strided convolution."""

    def __init__(self, layer: PreNormConvMerging, dtype: torch.dtype):
        super().__init__()
        assert isinstance(layer.norm, nn.LayerNorm)
        self.norm, self.conv, self.check = LaneNorm.of(layer.norm), _packed(layer.reduction, dtype), layer.check

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Normalise and merge; the grid must have no prefix."""
        self.check(grid)
        cells = grid.cells(layer_norm(x, self.norm, self.conv.product.dtype))
        return to_grid(convolve(cells, self.conv, dtype=x.dtype))


class FusedTokenizer(nn.Module):
    """Images through strided convolutions, one after the other, then a norm or none."""

    def __init__(self, convs: list[PackedConvolution], norm: LaneNorm | None):
        super().__init__()
        self.convs, self.norm = convs, norm

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convert images to tokens."""
        cells = images.to(self.convs[0].product.dtype).permute(0, 2, 3, 1)  # (B, C, Y, X) -> (B, Y, X, C)
        *before, last = self.convs
        for conv in before:
            cells = convolve(cells, conv)
        return to_grid(convolve(cells, last, self.norm, RESIDUAL[cells.dtype]))


class FusedOverlappingPatches(FusedTokenizer):
    """Overlapping patches of images that hold at least one."""

    def __init__(self, layer: OverlappingPatchEmbedding, dtype: torch.dtype):
        super().__init__([_packed(layer.proj, dtype)], None)
        self.check = layer.check
        del layer.proj

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Cut and project."""
        self.check(images)
        return super().forward(images)


def fuse_conv_merging(layer: ConvMerging, dtype: torch.dtype) -> FusedConvMerging:
    """Return the fused convolution that merges tokens."""
    return FusedConvMerging(_packed(layer.reduction, dtype), None)


def fuse_normed_conv_merging(layer: NormedConvMerging, dtype: torch.dtype) -> FusedConvMerging:
    """Return the fused convolution that merges tokens, with its norm."""
    return FusedConvMerging(_packed(layer.reduction, dtype), LaneNorm.of(layer.norm))


def fuse_pre_norm_conv_merging(layer: PreNormConvMerging, dtype: torch.dtype) -> FusedPreNormConvMerging:
    """Return the fused norm and convolution that merges tokens."""
    return FusedPreNormConvMerging(layer, dtype)


def fuse_tokenizer(layer: ConvTokenizer, dtype: torch.dtype) -> FusedTokenizer:
    """Return the two fused convolutions of images, with their norm."""
    check_parts(layer.proj, {"0": (nn.Conv2d,), "1": (nn.Conv2d,)})
    return FusedTokenizer([_packed(conv, dtype) for conv in layer.proj], LaneNorm.of(layer.norm))


def fuse_overlapping_patches(layer: OverlappingPatchEmbedding, dtype: torch.dtype) -> FusedOverlappingPatches:
    """Return the fused overlapping patches."""
    return FusedOverlappingPatches(layer, dtype)


def _packed(conv: nn.Module, dtype: torch.dtype) -> PackedConvolution:
    assert isinstance(conv, nn.Conv2d)
    check_conv(conv)
    bias = None if conv.bias is None else conv.bias.detach().float()
    padding = conv.padding[0]
    assert isinstance(padding, int)
    return pack_convolution(conv.weight.detach().float(), bias, conv.stride[0], padding, dtype)


def check_conv(conv: nn.Conv2d) -> None:
    """Check that a convolution is square, dense and padded with zeros.

    Raises:
        NotConverted: it is not.
    """
    square = all(len({*of}) == 1 for of in (conv.kernel_size, conv.stride, conv.padding))
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    if not (square and plain) or isinstance(conv.padding, str):
        raise NotConverted("its convolution has groups, dilation, another padding or unequal sides")
