"""A block as two branches, each of which answers with the sum that it is added to.

Only what the model computes anyway is moved: the scale and shift of a LayerNorm, the queries' 1 / sqrt(d) and a
LayerScale are folded into the weights beside them.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitrail.fast.attention import fast_attention
from vitrail.fast.kept import Kept
from vitrail.fast.mlp import fast_mlp
from vitrail.grid import Grid
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.shapes import Tokens

BranchForm = Callable[..., nn.Module]
"""`(norm, mixer, scale, dtype) -> (x, grid) -> x`; raises `Kept` where it cannot."""

BRANCHES: dict[type[nn.Module], BranchForm] = {
    SelfAttention: fast_attention,
    WindowAttention: fast_attention,
    MLP: fast_mlp,
}
"""The fast form of `x + scale(mixer(norm(x)))` for each mixer of exactly this type."""


class FastBlock(nn.Module):
    """A block of two branches, `(x, grid) -> x`, each of which adds itself."""

    def __init__(self, tokens: nn.Module, channels: nn.Module):
        super().__init__()
        self.tokens, self.channels = tokens, channels

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix tokens, then channels."""
        return self.channels(self.tokens(x, grid), grid)


class PlainBranch(nn.Module):
    """`x + scale(mixer(norm(x)))` as it was."""

    def __init__(self, norm: nn.Module, mixer: nn.Module, scale: nn.Module):
        super().__init__()
        self.norm, self.mixer, self.scale = norm, mixer, scale

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch."""
        return x + self.scale(self.mixer(self.norm(x), grid))


def fast_block(block: Block, dtype: torch.dtype, kept: Counter[str]) -> FastBlock:
    """Return the fast form of a block; `kept` counts the branches that stay as they are, with why."""
    return FastBlock(
        _branch("token mixer", (block.norm1, block.token_mixer, block.scale1), dtype, kept),
        _branch("channel mixer", (block.norm2, block.channel_mixer, block.scale2), dtype, kept),
    )


def _branch(
    place: str, branch: tuple[nn.Module, nn.Module, nn.Module], dtype: torch.dtype, kept: Counter[str]
) -> nn.Module:
    kind = type(branch[1])
    try:
        if kind not in BRANCHES:
            raise Kept(f"{kind.__name__} has no compiled form")
        return BRANCHES[kind](*branch, dtype)
    except Kept as reason:
        kept[f"{place}: {reason}"] += 1
        return PlainBranch(*branch)
