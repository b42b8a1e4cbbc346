"""Blocks with a norm on the residual stream itself: of the compact Transformers, and of a small image GPT."""

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


class InputNormBlock(Block):
    """A norm of the stream, an attention branch without norm, then a pre-norm branch.

    x = norm1(x); x = x + drop(token_mixer(x)); x = x + drop(channel_mixer(norm2(x)))

    The code of teddykoker/image-gpt, whose weights are published; "Generative Pretraining from Pixels", section 3.2,
    has the pre-norm block.
    """

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels."""
        x = self.norm1(x)
        x = x + self.drop_path(self.scale1(self.token_mixer(x, grid)))
        return x + self.drop_path(self.scale2(self.channel_mixer(self.norm2(x), grid)))
