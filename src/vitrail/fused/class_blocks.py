"""Fused blocks around class attention (CaiT, XCiT), for CPU inference."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.fused.blocks import BRANCHES, FusedBlock, fuse_branches
from vitrail.fused.unsupported import NotConverted, has_hooks, require_libraries
from vitrail.grid import Grid
from vitrail.native.layer_norm import layer_norm
from vitrail.native.norms import LaneNorm
from vitrail.parts.blocks import Block, PrefixBlock
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.xcit_blocks import ClassBlock
from vitrail.shapes import Tokens


class FusedPrefixBlock(FusedBlock):
    """A block whose channel mixer reads the prefix alone."""

    def mix(self, x: Tokens, grid: Grid) -> Tensor:
        """Apply both branches to the residual."""
        x = self.tokens(x, grid)
        x[:, : grid.prefix] = self.channels(x[:, : grid.prefix].contiguous(), grid)
        return x


class FusedClassBlock(FusedBlock):
    """A class block of XCiT, in which cells are scaled and normalised.

    Args:
        tokens: branch of the class attention, which adds nothing to cells.
        channels: branch of the channel mixer, without a norm of its own.
        block: the block, for its norms and the scale of cells.
    """

    def __init__(self, tokens: nn.Module, channels: nn.Module, block: ClassBlock):
        super().__init__(tokens, channels)
        assert isinstance(block.norm1, nn.LayerNorm) and isinstance(block.norm2, nn.LayerNorm)
        self.norm1, self.norm2 = LaneNorm.of(block.norm1), LaneNorm.of(block.norm2)
        self.whole = type(block) is ClassBlock
        scale = block.scale1
        factor = scale.gamma.detach().clone() if isinstance(scale, LayerScale) else torch.ones(1)
        self.factor = nn.Parameter(factor)

    def mix(self, x: Tokens, grid: Grid) -> Tensor:
        """Apply both branches to the prefix; scale and normalise the cells."""
        p = grid.prefix
        y = self.tokens(x, grid)
        y[:, p:].addcmul_(self.factor, layer_norm(x, self.norm1)[:, p:])
        y = layer_norm(y, self.norm2) if self.whole else y
        prefix = y[:, :p].contiguous()
        prefix = self.channels(prefix if self.whole else layer_norm(prefix, self.norm2), grid)
        y += y
        y[:, :p] = prefix
        return y


def fuse_prefix_block(
    block: PrefixBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedPrefixBlock:
    """Return the fused block.

    Raises:
        NotConverted: the block has unknown parts, or another token mixer than class attention.
    """
    _check_mixer(block)
    return FusedPrefixBlock(*fuse_branches(block, dtype, unconverted, targets))


def fuse_class_block(
    block: ClassBlock, dtype: torch.dtype, unconverted: Counter[str], targets: Sequence[str]
) -> FusedClassBlock:
    """Return the fused block.

    Raises:
        NotConverted: the block has unknown parts, another token mixer than class attention, or another norm or scale.
    """
    _check_mixer(block)
    norms, scale = (block.norm1, block.norm2), block.scale1
    if any(type(norm) is not nn.LayerNorm or len(norm.normalized_shape) != 1 for norm in norms):
        raise NotConverted("its norms are no LayerNorms over channels")
    if type(scale) not in (nn.Identity, LayerScale) or has_hooks(*norms, scale):
        raise NotConverted(f"its scale1 is {type(scale).__name__}, or a norm or it has hooks")
    require_libraries("layer_norm")
    branches = {"token mixer": BRANCHES["token mixer"], "channel mixer": ("", "channel_mixer", "scale2")}
    tokens, channels = fuse_branches(block, dtype, unconverted, targets, branches=branches)
    return FusedClassBlock(tokens, channels, block)


def _check_mixer(block: Block) -> None:
    """Check that cells stay as they are: other mixers of a class block have results for them, which it drops.

    Raises:
        NotConverted: the token mixer is another one.
    """
    if type(block.token_mixer) is not ClassAttention:
        raise NotConverted(f"its token_mixer is {type(block.token_mixer).__name__}")
