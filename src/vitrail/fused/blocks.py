"""A block as two branches, each of which answers with the sum that it is added to.

Only what the model computes anyway is moved: the scale and shift of a LayerNorm, the queries' 1 / sqrt(d) and a
LayerScale are folded into the weights beside them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.fused.attention import fuse_attention
from vitrail.fused.conversion import Conversion, Conversions
from vitrail.fused.neighborhood import fuse_neighborhood
from vitrail.fused.pooling import fuse_channel_mlp, fuse_pooling
from vitrail.fused.token_mlp import fuse_token_mlp
from vitrail.fused.unsupported import NotConverted, has_hooks
from vitrail.grid import Grid
from vitrail.native.dtypes import as_residual
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens

BRANCHES: Conversions = {
    SelfAttention: Conversion(fuse_attention, ("attention",)),
    WindowAttention: Conversion(fuse_attention, ("attention",)),
    NeighborhoodAttention: Conversion(fuse_neighborhood, ("neighborhood",)),
    Pooling: Conversion(fuse_pooling, ("pooling",)),
    TokenMLP: Conversion(fuse_token_mlp, ("token_mlp",)),
    MLP: Conversion(fuse_channel_mlp),
}
"""The fast form of `x + scale(mixer(norm(x)))` for each mixer of exactly this type: `(norm, mixer, scale, dtype)` gives
a module `(x, grid) -> x`."""


class Branches(NamedTuple):
    """Conversions of branches, and what to call them where a mixer has none of them."""

    forms: Conversions
    what: str


COMPILED = Branches(BRANCHES, "compiled form")


class FusedBlock(nn.Module):
    """A block of two branches, `(x, grid) -> x`, each of which adds itself."""

    def __init__(self, tokens: nn.Module, channels: nn.Module):
        super().__init__()
        self.tokens, self.channels = tokens, channels

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix tokens, then channels."""
        return self.channels(self.tokens(x, grid), grid)


class UnfusedBranch(nn.Module):
    """`x + scale(mixer(norm(x)))` as it was, in the precision of products; only the sum is stored as the residual."""

    def __init__(self, norm: nn.Module, mixer: nn.Module, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.norm, self.mixer, self.scale, self.dtype = norm, mixer, scale, dtype

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return as_residual(x + self.scale(self.mixer(self.norm(x.to(self.dtype)), grid)), x.dtype)


def fuse_block(block: Block, dtype: torch.dtype, unconverted: Counter[str], kinds: Sequence[Branches]) -> FusedBlock:
    """Return the fast form of a block.

    Args:
        block: what to compute.
        dtype: precision of products.
        unconverted: counts the branches that a form refuses, with why.
        kinds: the first whose form does not refuse is taken; a branch that all refuse stays as it is.
    """
    return FusedBlock(
        _branch("token mixer", (block.norm1, block.token_mixer, block.scale1), dtype, unconverted, kinds),
        _branch("channel mixer", (block.norm2, block.channel_mixer, block.scale2), dtype, unconverted, kinds),
    )


def _branch(
    place: str,
    branch: tuple[nn.Module, nn.Module, nn.Module],
    dtype: torch.dtype,
    unconverted: Counter[str],
    kinds: Sequence[Branches],
) -> nn.Module:
    mixer = type(branch[1])
    for kind in kinds:
        try:
            if has_hooks(*branch):
                raise NotConverted(f"somebody listens to the {mixer.__name__}")
            if mixer not in kind.forms:
                raise NotConverted(f"{mixer.__name__} has no {kind.what}")
            return kind.forms[mixer].of(*branch, dtype)
        except NotConverted as reason:
            unconverted[f"{place}: {reason}"] += 1
    return UnfusedBranch(*branch, dtype)
