"""Fused local patch interaction (XCiT), for CPU inference."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitrail.fused.conv_bottlenecks import batch_scale
from vitrail.fused.depthwise import check_depthwise
from vitrail.fused.unsupported import NotConverted, Seats
from vitrail.grid import Grid
from vitrail.native.depthwise import PackedDepthwise, depthwise, pack_depthwise
from vitrail.native.layer_norm import layer_norm
from vitrail.native.norms import LaneNorm, lanes
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.local_patch_interaction import LocalPatchInteraction
from vitrail.shapes import Tokens

LOCAL_PATCHES_SEATS: Seats = {
    "conv1": (nn.Conv2d,),
    "act": (nn.GELU,),
    "norm": (nn.BatchNorm2d,),
    "conv2": (nn.Conv2d,),
}


class FusedLocalPatches(nn.Module):
    """`x + scale(mixer(norm(x)))`: a norm, a convolution with GELU, the batch norm, a convolution with the LayerScale.

    The batch norm stays between the convolutions: its shift is not added to the zeros around the map.
    """

    def __init__(self, norm: nn.Module, mixer: LocalPatchInteraction, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        check_depthwise(mixer.conv1)
        check_depthwise(mixer.conv2)
        if mixer.act.approximate != "none":
            raise NotConverted("its act is an approximate GELU")
        if type(norm) is not nn.LayerNorm or norm.normalized_shape != (mixer.conv1.in_channels,):
            raise NotConverted(f"the norm before it is {type(norm).__name__}, not LayerNorm over channels")
        self.norm, self.dtype = LaneNorm.of(norm), dtype
        by, shift = (lanes(values.float()) for values in batch_scale(mixer.norm))
        self.first = replace(pack_depthwise(mixer.conv1), after=(by, shift))
        self.second = _scaled(pack_depthwise(mixer.conv2), scale)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        y = depthwise(layer_norm(x, self.norm, self.dtype), grid, self.first, gelu=True)
        return depthwise(y, grid, self.second, add=x)


def _scaled(packed: PackedDepthwise, scale: nn.Module) -> PackedDepthwise:
    """Return filters with the LayerScale after them folded in.

    Raises:
        NotConverted: the scale is neither LayerScale nor identity.
    """
    if type(scale) is nn.Identity:
        return packed
    if type(scale) is not LayerScale:
        raise NotConverted(f"its scale is {type(scale).__name__}")
    gamma = lanes(scale.gamma.detach().float())
    taps = packed.taps * gamma.view(len(packed.taps), 1, -1)  # (vectors of channels, k k, lanes)
    return replace(packed, taps=taps.contiguous(), bias=packed.bias * gamma)
