"""The block of the compact Transformers: its second norm is on the residual stream."""

from vitrail.layouts import Layout
from vitrail.parts.blocks import Block
from vitrail.shapes import Tokens


class StreamNormBlock(Block):
    """A pre-norm attention branch, then a norm of the stream itself, then a branch without norm.

    x = norm2(x + drop(token_mixer(norm1(x)))); x = x + drop(channel_mixer(x))

    The authors' code of "Escaping the Big Data Paradigm with Compact Transformers"; the paper draws ViT's block.
    """

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels."""
        x = self.norm2(x + self.drop_path(self.scale1(self.token_mixer(self.norm1(x), grid))))
        return x + self.drop_path(self.scale2(self.channel_mixer(x, grid)))
