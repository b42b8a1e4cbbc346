"""Blocks of language models: norm last, and blocks of a decoder."""

from torch import nn

from vitrail.layouts import Layout
from vitrail.parts.regularisation import DropPath
from vitrail.shapes import Tokens


class PostNormBlock(nn.Module):
    """Block with the norm last, after the residual sum.

    x = norm1(alpha * x + drop(scale1(token_mixer(x)))); x = norm2(alpha * x + drop(scale2(channel_mixer(x))))

    "Attention Is All You Need", section 3.1, with alpha = 1. "DeepNet: Scaling Transformers to 1,000 Layers",
    section 4.1 (DeepNorm), with the alpha of `deepnorm_constants`.

    Args:
        norm1: after the token mixer.
        token_mixer: `(x, layout) -> x`.
        norm2: after the channel mixer.
        channel_mixer: `(x, layout) -> x`.
        drop_path: rate at which a sample skips a branch while training.
        scale1: applied to the token mixer's branch (dropout, LayerScale); the identity by default.
        scale2: the same for the channel mixer.
        alpha: factor of the residual.
    """

    def __init__(
        self,
        norm1: nn.Module,
        token_mixer: nn.Module,
        norm2: nn.Module,
        channel_mixer: nn.Module,
        drop_path: float = 0.0,
        scale1: nn.Module | None = None,
        scale2: nn.Module | None = None,
        alpha: float = 1.0,
    ):
        super().__init__()
        self.norm1, self.token_mixer, self.scale1 = norm1, token_mixer, scale1 or nn.Identity()
        self.norm2, self.channel_mixer, self.scale2 = norm2, channel_mixer, scale2 or nn.Identity()
        self.drop_path = DropPath(drop_path)
        self.alpha = alpha

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, then channels; normalise each sum."""
        x = self.norm1(self.alpha * x + self.drop_path(self.scale1(self.token_mixer(x, grid))))
        return self.norm2(self.alpha * x + self.drop_path(self.scale2(self.channel_mixer(x, grid))))


class DecoderBlock(nn.Module):
    """Block of a decoder, norm first: its own tokens, the memory of an encoder, channels.

    x = x + drop(token_mixer(norm1(x))); x = x + drop(cross_mixer(norm_cross(x))); x = x + drop(channel_mixer(norm2(x)))

    "Attention Is All You Need", section 3.1, with the norms placed as in "On Layer Normalization in the Transformer
    Architecture", figure 1 (b).

    Args:
        norm1: norm of the token mixer.
        token_mixer: causal attention over the tokens so far.
        norm_cross: norm of the cross-attention.
        cross_mixer: attention to the memory of the layout.
        norm2: norm of the channel mixer.
        channel_mixer: `(x, layout) -> x`.
        dropout: rate of dropped entries of each branch while training.
    """

    def __init__(
        self,
        norm1: nn.Module,
        token_mixer: nn.Module,
        norm_cross: nn.Module,
        cross_mixer: nn.Module,
        norm2: nn.Module,
        channel_mixer: nn.Module,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm1, self.token_mixer = norm1, token_mixer
        self.norm_cross, self.cross_mixer = norm_cross, cross_mixer
        self.norm2, self.channel_mixer = norm2, channel_mixer
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, the memory, then channels."""
        x = x + self.dropout(self.token_mixer(self.norm1(x), grid))
        x = x + self.dropout(self.cross_mixer(self.norm_cross(x), grid))
        return x + self.dropout(self.channel_mixer(self.norm2(x), grid))


class PostNormDecoderBlock(DecoderBlock):
    """Block of a decoder, norm last, as in "Attention Is All You Need", section 3.1.

    x = norm1(x + drop(token_mixer(x))); x = norm_cross(x + drop(cross_mixer(x))); x = norm2(x + drop(channel_mixer(x)))
    """

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix tokens, the memory, then channels; normalise each sum."""
        x = self.norm1(x + self.dropout(self.token_mixer(x, grid)))
        x = self.norm_cross(x + self.dropout(self.cross_mixer(x, grid)))
        return self.norm2(x + self.dropout(self.channel_mixer(x, grid)))


def deepnorm_constants(depth: int) -> tuple[float, float]:
    """Return alpha (factor of the residual) and beta (gain of the initial weights) of an encoder or a decoder alone.

    alpha = (2 depth)^(1/4), beta = (8 depth)^(-1/4)

    "DeepNet", figure 2. Beta scales the initial weights of values, output projections and MLPs, not queries and keys.

    Example:
        >>> deepnorm_constants(8)[0]
        2.0
    """
    return (2 * depth) ** 0.25, (8 * depth) ** -0.25
