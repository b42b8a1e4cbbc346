"""Fused convolutions of channels-last maps in dense heads and restorers, with batch norm, ReLU and skip connection."""

from typing import cast

import torch
from torch import Tensor, nn

from vitrail.fused.convolution import check_conv
from vitrail.fused.unsupported import NotConverted, Seats, check_parts, has_hooks
from vitrail.grid import Grid
from vitrail.native.gemm import linear, pack_linear
from vitrail.native.winograd import convolve_3x3, pack_3x3
from vitrail.parts.convolutions import ChannelsFirst
from vitrail.parts.decoders.conv_norm_act import ConvNormAct, MapBatchNorm
from vitrail.parts.residual_stage import ResidualStage
from vitrail.shapes import Tokens

UNIT_SEATS: Seats = {"conv": (nn.Conv2d,), "norm": (MapBatchNorm,)}


class FusedConv3x3(nn.Module):
    """A 3 x 3 convolution with padding 1 of a `(B, C, h, w)` map; its memory is channels last.

    Args:
        weight: filters `(out, in, 3, 3)`.
        bias: `(out,)`, or None.
        slope: of negative outputs: 0 for a ReLU, 1 for no activation.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, slope: float = 1.0):
        super().__init__()
        self.packed, self.slope = pack_3x3(weight, bias), slope

    def forward(self, cells: ChannelsFirst, add: Tensor | None = None) -> Tensor:
        """Convolve, add a `(B, h, w, out)` map, and rectify."""
        return convolve_3x3(cells.permute(0, 2, 3, 1), self.packed, add, self.slope).permute(0, 3, 1, 2)


class FusedConv1x1(nn.Module):
    """A 1 x 1 convolution of an fp32 map, as one GEMM.

    Args:
        weight: `(out, in)`.
        bias: `(out,)`, or None.
        rectified: whether a ReLU follows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rectified: bool = False):
        super().__init__()
        self.packed, self.rectified = pack_linear(weight, bias, torch.float32), rectified

    def forward(self, cells: ChannelsFirst) -> Tensor:
        """Project each cell."""
        y = linear(cells.permute(0, 2, 3, 1), self.packed).permute(0, 3, 1, 2)
        return y.relu_() if self.rectified else y


class FusedDoubling(nn.Module):
    """A transposed convolution of 2 x 2 windows with stride 2: one GEMM, whose outputs are four cells each."""

    def __init__(self, conv: nn.ConvTranspose2d):
        super().__init__()
        weight = conv.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)  # (in, out, 2, 2) -> (4 out, in)
        bias = None if conv.bias is None else conv.bias.detach().repeat(4)
        self.packed, self.outputs = pack_linear(weight, bias, torch.float32), conv.out_channels

    def forward(self, cells: ChannelsFirst) -> Tensor:
        """Double the sides."""
        y = linear(cells.permute(0, 2, 3, 1), self.packed)  # (B, h, w, 2 2 out)
        parts = y.unflatten(3, (2, 2, self.outputs)).permute(0, 5, 1, 3, 2, 4)  # (B, out, h, 2, w, 2)
        return parts.flatten(4, 5).flatten(2, 3)


class FusedResidualStage(nn.Module):
    """A residual group of SwinIR, whose convolution adds the skip connection: `(x, grid) -> (x, grid)`."""

    def __init__(self, stage: ResidualStage, conv: FusedConv3x3):
        super().__init__()
        self.blocks, self.conv = stage.blocks, conv

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Run the blocks, convolve their map, and add the input."""
        y = x
        for block in self.blocks:
            y = block(y, grid)
        return convolve_3x3(grid.cells(y), self.conv.packed, grid.cells(x)).flatten(1, 2), grid


def folded_weights(unit: ConvNormAct) -> tuple[Tensor, Tensor]:
    """Return filters and bias of a convolution with the statistics of its batch norm folded in, in fp64.

    w' = w * gamma / sqrt(var + eps);  b' = beta - mean * gamma / sqrt(var + eps)

    Raises:
        NotConverted: it has unknown parts.
    """
    check_parts(unit, UNIT_SEATS)
    norm = unit.norm
    if norm.running_var is None or norm.running_mean is None:
        raise NotConverted("its batch norm has no running statistics")
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.detach().double() - norm.running_mean.double() * scale
    return unit.conv.weight.detach().double() * scale[:, None, None, None], bias


def fuse_unit(unit: ConvNormAct) -> FusedConv3x3 | FusedConv1x1:
    """Return the fused convolution, batch norm and ReLU.

    Raises:
        NotConverted: another size, or unknown parts.
    """
    weight, bias = folded_weights(unit)
    if _side(unit.conv) == 3:
        return FusedConv3x3(weight, bias.float(), slope=0.0)
    return FusedConv1x1(weight.flatten(1).float(), bias.float(), rectified=True)


def fuse_map_conv(conv: nn.Conv2d, rectified: bool = False) -> FusedConv3x3 | FusedConv1x1:
    """Return the fused convolution of a map.

    Args:
        conv: the convolution.
        rectified: whether a ReLU follows.

    Raises:
        NotConverted: another size than 1 x 1 or 3 x 3, a stride, or hooks.
    """
    if has_hooks(conv):
        raise NotConverted("it has hooks or a forward of its own")
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if _side(conv) == 3:
        return FusedConv3x3(weight, bias, slope=0.0 if rectified else 1.0)
    return FusedConv1x1(weight.flatten(1), bias, rectified)


def fuse_doubling(conv: nn.ConvTranspose2d) -> FusedDoubling:
    """Return the fused transposed convolution.

    Raises:
        NotConverted: another size than 2 x 2 with stride 2, or hooks.
    """
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.output_padding == conv.padding == (0, 0)
    if has_hooks(conv) or not plain or conv.kernel_size != (2, 2) or conv.stride != (2, 2):
        raise NotConverted("it is no doubling by 2 x 2 windows")
    return FusedDoubling(conv)


def fuse_residual_stage(stage: ResidualStage) -> FusedResidualStage:
    """Return the fused residual group; its blocks are converted afterwards.

    Raises:
        NotConverted: its convolution is another one.
    """
    if type(stage.conv) is not nn.Conv2d or has_hooks(stage.conv):
        raise NotConverted(f"its convolution is {type(stage.conv).__name__}, or has hooks")
    fused = fuse_map_conv(stage.conv)
    if not isinstance(fused, FusedConv3x3):
        raise NotConverted("its convolution is not 3 x 3")
    return FusedResidualStage(stage, fused)


def _side(conv: nn.Conv2d) -> int:
    """Return the side of a convolution that keeps the size of its map, 1 or 3."""
    check_conv(conv)
    side, padding = conv.kernel_size[0], cast("tuple[int, int]", conv.padding)[0]
    if (side, padding) not in ((1, 0), (3, 1)) or conv.stride != (1, 1):
        raise NotConverted(f"its convolution has size {side}, padding {padding} and stride {conv.stride[0]}")
    return side
