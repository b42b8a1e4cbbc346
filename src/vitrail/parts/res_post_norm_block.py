"""Residual post-norm: each residual branch ends with a norm."""

from torch import nn

from vitrail.layouts import Layout
from vitrail.parts.blocks import Block
from vitrail.shapes import Tokens


class ResPostNormBlock(Block):
    """The block of Swin V2: norms follow the mixers, inside the residual branches.

    x = x + drop(norm1(token_mixer(x))); x = x + drop(norm2(channel_mixer(x)))

    "Swin Transformer V2", section 3.2. Activations do not grow from block to block as in a pre-norm block, and the
    identity path has no norm on it, other than in the original post-norm block. Scale and shift of both norms begin at
    zero, so that a new block is the identity (the authors' code).

    Args:
        norm1: after the token mixer.
        token_mixer: `(x, grid) -> x`.
        norm2: after the channel mixer.
        channel_mixer: `(x, grid) -> x`.
        drop_path: rate at which a sample skips a branch while training.
    """

    def __init__(
        self,
        norm1: nn.LayerNorm,
        token_mixer: nn.Module,
        norm2: nn.LayerNorm,
        channel_mixer: nn.Module,
        drop_path: float = 0.0,
    ):
        super().__init__(norm1, token_mixer, norm2, channel_mixer, drop_path)
        for norm in (norm1, norm2):
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels."""
        x = x + self.drop_path(self.norm1(self.token_mixer(x, grid)))
        return x + self.drop_path(self.norm2(self.channel_mixer(x, grid)))
