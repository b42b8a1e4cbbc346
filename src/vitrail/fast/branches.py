"""A block as two branches, each of which answers with the sum that it is added to.

Only what the model computes anyway is moved: the scale and shift of a LayerNorm, the queries' 1 / sqrt(d) and a
LayerScale are folded into the weights beside them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.fast.attention import fast_attention
from vitrail.fast.form import Form, Forms
from vitrail.fast.kept import Kept, watched
from vitrail.fast.neighborhood import fast_neighborhood
from vitrail.fast.pooling import fast_channel_mlp, fast_pooling
from vitrail.fast.token_mlp import fast_token_mlp
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

BRANCHES: Forms = {
    SelfAttention: Form(fast_attention, ("attention",)),
    WindowAttention: Form(fast_attention, ("attention",)),
    NeighborhoodAttention: Form(fast_neighborhood, ("neighborhood",)),
    Pooling: Form(fast_pooling, ("pooling",)),
    TokenMLP: Form(fast_token_mlp, ("token_mlp",)),
    MLP: Form(fast_channel_mlp),
}
"""The fast form of `x + scale(mixer(norm(x)))` for each mixer of exactly this type: `(norm, mixer, scale, dtype)` gives
a module `(x, grid) -> x`."""


class Branches(NamedTuple):
    """Forms of branches, and what to call them where a mixer has none of them."""

    forms: Forms
    what: str


COMPILED = Branches(BRANCHES, "compiled form")


class FastBlock(nn.Module):
    """A block of two branches, `(x, grid) -> x`, each of which adds itself."""

    def __init__(self, tokens: nn.Module, channels: nn.Module):
        super().__init__()
        self.tokens, self.channels = tokens, channels

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix tokens, then channels."""
        return self.channels(self.tokens(x, grid), grid)


class PlainBranch(nn.Module):
    """`x + scale(mixer(norm(x)))` as it was, in the precision of products; only the sum is stored as the residual."""

    def __init__(self, norm: nn.Module, mixer: nn.Module, scale: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.norm, self.mixer, self.scale, self.dtype = norm, mixer, scale, dtype

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return as_residual(x + self.scale(self.mixer(self.norm(x.to(self.dtype)), grid)), x.dtype)


def fast_block(block: Block, dtype: torch.dtype, kept: Counter[str], kinds: Sequence[Branches]) -> FastBlock:
    """Return the fast form of a block.

    Args:
        block: what to compute.
        dtype: precision of products.
        kept: counts the branches that a form refuses, with why.
        kinds: the first whose form does not refuse is taken; a branch that all refuse stays as it is.
    """
    return FastBlock(
        _branch("token mixer", (block.norm1, block.token_mixer, block.scale1), dtype, kept, kinds),
        _branch("channel mixer", (block.norm2, block.channel_mixer, block.scale2), dtype, kept, kinds),
    )


def _branch(
    place: str,
    branch: tuple[nn.Module, nn.Module, nn.Module],
    dtype: torch.dtype,
    kept: Counter[str],
    kinds: Sequence[Branches],
) -> nn.Module:
    mixer = type(branch[1])
    for kind in kinds:
        try:
            if watched(*branch):
                raise Kept(f"somebody listens to the {mixer.__name__}")
            if mixer not in kind.forms:
                raise Kept(f"{mixer.__name__} has no {kind.what}")
            return kind.forms[mixer].of(*branch, dtype)
        except Kept as reason:
            kept[f"{place}: {reason}"] += 1
    return PlainBranch(*branch, dtype)
