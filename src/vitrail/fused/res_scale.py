"""Fused blocks whose shortcuts have learned factors, for CPU inference."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.fused.blocks import BLOCK_PARTS, FusedBlock, fuse_branches
from vitrail.fused.unsupported import NotConverted, has_hooks
from vitrail.grid import Grid
from vitrail.parts.blocks import ResScaleBlock
from vitrail.parts.regularisation import LayerScale
from vitrail.shapes import Tokens


class FusedResScaleBlock(FusedBlock):
    """A block whose shortcuts have a factor for each channel: `r x + f(x) = (x + f(x)) + (r - 1) x`."""

    def __init__(self, block: ResScaleBlock, tokens: nn.Module, channels: nn.Module):
        super().__init__(ScaledShortcut(tokens, block.res_scale1), ScaledShortcut(channels, block.res_scale2))


class ScaledShortcut(nn.Module):
    """A fused branch and the factor of its shortcut.

    Args:
        branch: `(x, grid) -> x + f(x)`.
        scale: factors r.
    """

    def __init__(self, branch: nn.Module, scale: LayerScale):
        super().__init__()
        self.branch = branch
        self.more = nn.Parameter(scale.gamma.detach() - 1)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Return `r x + f(x)`."""
        return self.branch(x, grid).addcmul_(self.more, x)


def fuse_res_scale_block(
    block: ResScaleBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedResScaleBlock:
    """Return the fused block.

    Raises:
        NotConverted: the block has unknown parts.
    """
    scales = block.res_scale1, block.res_scale2
    if any(type(scale) is not LayerScale for scale in scales) or has_hooks(*scales):
        raise NotConverted("its res_scale is no LayerScale, or has hooks")
    if not type(block.scale1) is type(block.scale2) is nn.Identity:
        raise NotConverted("it has a scale1 or scale2, which its forward does not call")
    tokens, channels = fuse_branches(block, dtype, unconverted, targets, BLOCK_PARTS | {"res_scale1", "res_scale2"})
    return FusedResScaleBlock(block, tokens, channels)
