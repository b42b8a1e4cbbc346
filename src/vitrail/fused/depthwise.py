"""Fused depthwise convolutions, for CPU inference: between two linear layers, before an MLP, or added to the cells."""

import torch
from torch import Tensor, nn

from vitrail.fused.folding import NormAffine, scaled
from vitrail.fused.mlp import MLP_SEATS
from vitrail.fused.unsupported import NotConverted, Seats, check_parts, has_hooks
from vitrail.grid import Grid
from vitrail.native.depthwise import MOST, Before, depthwise, depthwise_branch, pack_depthwise
from vitrail.native.gemm import ADD, GELU, linear, mlp, pack_linear
from vitrail.native.threads import shared_evenly
from vitrail.parts.activations import StarReLU
from vitrail.parts.blocks import ConvNeXtBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.depthwise_mlp import DepthwiseMLP
from vitrail.parts.global_response_norm import GlobalResponseNorm
from vitrail.parts.peg import PEG
from vitrail.parts.regularisation import DropPath, LayerScale
from vitrail.parts.token_mixers.depthwise_convolution import DepthwiseConvolution
from vitrail.parts.token_mixers.separable_convolution import SeparableConvolution
from vitrail.shapes import Tokens

DEPTHWISE_MLP_SEATS: Seats = {
    "fc1": (nn.Linear,),
    "before": (nn.Identity, nn.ReLU),
    "conv": (nn.Conv2d,),
    "act": (nn.GELU,),
    "fc2": (nn.Linear,),
}
SEPARABLE_SEATS: Seats = {
    "expand": (nn.Linear,),
    "act": (StarReLU,),
    "depthwise": (nn.Conv2d,),
    "project": (nn.Linear,),
}
CONVNEXT_SEATS: Seats = {
    "token_mixer": (DepthwiseConvolution,),
    "norm": (nn.LayerNorm,),
    "channel_mixer": (MLP,),
    "scale": (nn.Identity, LayerScale),
    "drop_path": (DropPath,),
}


class FusedDepthwiseBranch(nn.Module):
    """`x + scale(W_2 act(DWConv(before(W_1 norm(x)))))` in one call, or in three if there are few images.

    Args:
        norm: before the first layer.
        layers: the first and the last layer.
        conv: the convolution between them.
        scale: LayerScale or identity.
        dtype: compute dtype.
        before: activation before the convolution, its factor and its addend.
        gelu: whether the convolution is followed by GELU.
    """

    def __init__(
        self,
        norm: nn.Module,
        layers: tuple[nn.Linear, nn.Linear],
        conv: nn.Conv2d,
        scale: nn.Module,
        dtype: torch.dtype,
        before: tuple[Before, float, float] = ("none", 1.0, 0.0),
        gelu: bool = False,
    ):
        super().__init__()
        first, last = layers
        check_depthwise(conv)
        if dtype == torch.bfloat16 and (first.in_features % 2 or last.in_features % 2):
            raise NotConverted(f"bf16 needs even widths, got {first.in_features} and {last.in_features}")
        affine = NormAffine.of(norm, first.in_features)
        if affine.eps is None:
            raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm")
        self.eps, self.dtype, self.gelu = affine.eps, dtype, gelu
        self.first, self.last = pack_linear(*affine.folded(first), dtype), pack_linear(*scaled(last, scale), dtype)
        self.conv = pack_depthwise(conv, *before)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        if shared_evenly(x.shape[0]):
            return depthwise_branch(x, grid, self.first, self.conv, self.last, self.eps, self.gelu)
        hidden = linear(x, self.first, norm_eps=self.eps, dtype=self.dtype)
        return linear(depthwise(hidden, grid, self.conv, self.gelu), self.last, ADD, add=x)


class FusedConvNeXtBlock(nn.Module):
    """`x + scale(mlp(norm(conv(x))))` in two calls; in more if a response norm follows its GELU."""

    def __init__(self, block: ConvNeXtBlock, dtype: torch.dtype):
        super().__init__()
        mixer, channels = block.token_mixer, block.channel_mixer
        assert isinstance(mixer, DepthwiseConvolution) and isinstance(channels, MLP)
        affine = NormAffine.of(block.norm, channels.fc1.in_features)
        assert affine.eps is not None
        self.eps, self.conv, self.dtype = affine.eps, pack_depthwise(mixer.conv), dtype
        # In a list: it is called in the compute dtype, and modules are cast to that of the residual.
        self.response = [channels.act[1].to(dtype)] if isinstance(channels.act, nn.Sequential) else []
        self.first = pack_linear(*affine.folded(channels.fc1), dtype)
        self.second = pack_linear(*scaled(channels.fc2, block.scale), dtype)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Convolve, then add the MLP."""
        mixed = depthwise(x, grid, self.conv)
        if not self.response:
            return mlp(mixed, self.first, self.second, add=x, norm_eps=self.eps)
        hidden = linear(mixed, self.first, GELU, norm_eps=self.eps, dtype=self.dtype)
        return linear(self.response[0](hidden), self.second, ADD, add=x)


class FusedPEG(nn.Module):
    """`x + DWConv(x)` on the cells, in the residual dtype: `(x, grid) -> x`."""

    def __init__(self, peg: PEG):
        super().__init__()
        self.conv = pack_depthwise(peg.conv, residual=True)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add each cell's position; prefix tokens pass."""
        cells = depthwise(x[:, grid.prefix :], grid._replace(prefix=0), self.conv)
        return cells if grid.prefix == 0 else torch.cat([x[:, : grid.prefix], cells], dim=1)


def fuse_depthwise_mlp(
    norm: nn.Module, mixer: DepthwiseMLP, scale: nn.Module, dtype: torch.dtype
) -> FusedDepthwiseBranch:
    """Return the fused branch of an MLP with a depthwise convolution inside.

    Raises:
        NotConverted: its norm, scale, widths or filters are others.
    """
    if mixer.act.approximate != "none":
        raise NotConverted("its act is an approximate GELU")
    before: Before = "relu" if type(mixer.before) is nn.ReLU else "none"
    return FusedDepthwiseBranch(
        norm, (mixer.fc1, mixer.fc2), mixer.conv, scale, dtype, before=(before, 1.0, 0.0), gelu=True
    )


def fuse_separable_convolution(
    norm: nn.Module, mixer: SeparableConvolution, scale: nn.Module, dtype: torch.dtype
) -> FusedDepthwiseBranch:
    """Return the fused branch of a separable convolution.

    Raises:
        NotConverted: its norm, scale, widths or filters are others.
    """
    star = "squared relu", mixer.act.scale.item(), mixer.act.bias.item()
    return FusedDepthwiseBranch(norm, (mixer.expand, mixer.project), mixer.depthwise, scale, dtype, before=star)


def fuse_convnext_block(block: ConvNeXtBlock, dtype: torch.dtype) -> FusedConvNeXtBlock:
    """Return the fused block.

    Raises:
        NotConverted: it has an activation other than GELU, other parts, or an odd width in bf16.
    """
    check_parts(block, CONVNEXT_SEATS)
    check_parts(block.token_mixer, {"conv": (nn.Conv2d,)})
    mixer, channels = block.token_mixer, block.channel_mixer
    assert isinstance(mixer, DepthwiseConvolution) and isinstance(channels, MLP)
    if type(channels.act) is nn.Sequential:
        check_parts(channels, {**MLP_SEATS, "act": (nn.Sequential,)})
        if [type(part) for part in channels.act] != [nn.GELU, GlobalResponseNorm] or has_hooks(channels.act):
            raise NotConverted("its act is an unknown Sequential")
    else:
        check_parts(channels, MLP_SEATS)
    gelu = channels.act[0] if isinstance(channels.act, nn.Sequential) else channels.act
    if gelu.approximate != "none":
        raise NotConverted("its act is an approximate GELU")
    check_depthwise(mixer.conv)
    if dtype == torch.bfloat16 and channels.fc1.in_features % 2:
        raise NotConverted(f"bf16 needs even widths, got {channels.fc1.in_features}")
    return FusedConvNeXtBlock(block, dtype)


def fuse_peg(peg: PEG, dtype: torch.dtype) -> FusedPEG:
    """Return the fused position encoding generator.

    Raises:
        NotConverted: its convolution is no depthwise one with zeros around the map.
    """
    check_depthwise(peg.conv)
    return FusedPEG(peg)


def check_depthwise(conv: nn.Conv2d) -> None:
    """Check that a convolution is depthwise, square, odd, of stride 1, with zeros around the map.

    Raises:
        NotConverted: it is not.
    """
    channels, inputs, high, side = conv.weight.shape
    plain = inputs == 1 and conv.groups == channels and conv.stride == conv.dilation == (1, 1)
    square = high == side <= MOST and side % 2 == 1 and conv.padding == (side // 2, side // 2)
    if not (plain and square and conv.padding_mode == "zeros") or has_hooks(conv):
        raise NotConverted("its convolution is no depthwise one that keeps the size of its map")
