"""Local-global attention: local features, in their order, read global ones."""

import torch
from torch import Tensor, nn

from vitrail.layouts import PointSet, TokenSequence
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.sequence_blocks import PostNormBlock, PostNormDecoderBlock
from vitrail.parts.token_mixers.cross_attention import CrossAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention

DROPOUT = 0.1


class EncoderBlock(PostNormBlock):
    """A post-norm block of a set, `(B, N, C) -> (B, N, C)`."""

    def forward(self, x: Tensor, grid: PointSet | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Mix the elements, then channels."""
        return super().forward(x, grid or PointSet(x))


def encoder_block(dim: int, num_heads: int, hidden: int) -> EncoderBlock:
    """Return a block of "Attention Is All You Need", norm last, with ReLU and dropout 0.1.

    Example:
        >>> encoder_block(8, num_heads=2, hidden=16)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """
    return EncoderBlock(
        nn.LayerNorm(dim),
        SelfAttention(dim, num_heads),
        nn.LayerNorm(dim),
        MLP(dim, hidden, nn.ReLU()),
        scale1=nn.Dropout(DROPOUT),
        scale2=nn.Dropout(DROPOUT),
    )


def decoder_block(dim: int, num_heads: int, hidden: int) -> PostNormDecoderBlock:
    """Return the decoder block of "Attention Is All You Need", whose own tokens see each other.

    Example:
        >>> layout = TokenSequence(5, memory=torch.zeros(1, 3, 8))
        >>> decoder_block(8, num_heads=2, hidden=16)(torch.zeros(1, 5, 8), layout).shape
        torch.Size([1, 5, 8])
    """
    return PostNormDecoderBlock(
        nn.LayerNorm(dim),
        SelfAttention(dim, num_heads),
        nn.LayerNorm(dim),
        CrossAttention(dim, num_heads),
        nn.LayerNorm(dim),
        MLP(dim, hidden, nn.ReLU()),
        DROPOUT,
    )


class LastDecoderBlock(nn.Module):
    """Decoder block whose MLP has another width and no residual.

    x = norm1(x + self_attention(x)); x = norm_cross(x + cross_attention(x)); y = W_2 relu(W_1 x)

    "Point Transformer", Engel et al., 2021, section III-D, and the authors' code.

    Args:
        dim: channels C.
        num_heads: heads.
        hidden: channels between the two layers.
        outputs: channels of y.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, outputs: int):
        super().__init__()
        self.norm1, self.token_mixer = nn.LayerNorm(dim), SelfAttention(dim, num_heads)
        self.norm_cross, self.cross_mixer = nn.LayerNorm(dim), CrossAttention(dim, num_heads)
        self.dropout = nn.Dropout(DROPOUT)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, grid: TokenSequence) -> Tensor:
        """Return `(B, N, outputs)`."""
        x = self.norm1(x + self.dropout(self.token_mixer(x, grid)))
        x = self.norm_cross(x + self.dropout(self.cross_mixer(x, grid)))
        return self.fc2(self.dropout(self.fc1(x).relu()))


class LocalGlobalAttention(nn.Module):
    """Local features read global ones.

    "Point Transformer", section III-D: global features attend to each other in an encoder block, local ones to each
    other and to them in decoder blocks.

    Args:
        encoder: block of the global features.
        norm: after it.
        decoder: block of the local features.
        last: last block of them.
    """

    def __init__(self, encoder: EncoderBlock, norm: nn.Module, decoder: nn.Module, last: nn.Module):
        super().__init__()
        self.encoder, self.norm, self.decoder, self.last = encoder, norm, decoder, last

    def forward(self, local: Tensor, centres: Tensor, around: Tensor) -> Tensor:
        """Return local features that have read the global ones, `(B, M K, outputs)`.

        Args:
            local: `(B, M K, C)`.
            centres: coordinates of the global features `(B, N, 3)`.
            around: their other channels, `(B, N, C - 3)`.
        """
        memory = self.norm(self.encoder(torch.cat([centres, around], dim=-1)))
        layout = TokenSequence(local.shape[1], memory=memory)
        return self.last(self.decoder(local, layout), layout)


def local_global_attention(dim: int, num_heads: int, hidden: tuple[int, int], outputs: int) -> LocalGlobalAttention:
    """Return the attention of a Point Transformer.

    Args:
        dim: channels C.
        num_heads: heads.
        hidden: channels of the MLPs of the encoder block and of the last decoder block.
        outputs: channels of the result.

    Example:
        >>> attention = local_global_attention(8, num_heads=2, hidden=(16, 16), outputs=4)
        >>> attention(torch.zeros(1, 6, 8), torch.zeros(1, 5, 3), torch.zeros(1, 5, 5)).shape
        torch.Size([1, 6, 4])
    """
    return LocalGlobalAttention(
        encoder_block(dim, num_heads, hidden=hidden[0]),
        nn.LayerNorm(dim),
        decoder_block(dim, num_heads, hidden=4 * dim),
        LastDecoderBlock(dim, num_heads, hidden[1], outputs),
    )
