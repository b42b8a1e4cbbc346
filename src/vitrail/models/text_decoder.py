"""Transformer decoder as a language model, trained from scratch on one text.

The decoder of "Language Models are Unsupervised Multitask Learners" with rotary positions ("RoFormer", section 3.2.2)
in place of a table, so it has no longest text. Sizes are ours, chosen for texts of about a million characters:

| model | layers | C | heads |
|---|---|---|---|
| tiny | 4 | 128 | 4 |
| small | 6 | 192 | 6 |
| base | 6 | 384 | 6 |
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_gpt2
from vitrail.parts.sequence_model import SequenceBackbone, TiedModel
from vitrail.parts.sequence_positions import RotaryPosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead
from vitrail.parts.token_mixers.causal_attention import CausalAttention


@dataclass(frozen=True)
class TextDecoderConfig:
    """The numbers of a Transformer decoder."""

    dim: int
    depth: int
    num_heads: int
    vocab_size: int = 256
    mlp_ratio: float = 4.0
    dropout: float = 0.1


def build(config: TextDecoderConfig) -> TiedModel:
    """Assemble a Transformer decoder from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["text_decoder_tiny"])
        >>> sum(value.numel() for value in model.parameters())
        826112
    """
    c = config
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=CausalAttention(c.dim, c.num_heads, RotaryPosition(c.dim // c.num_heads)),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    embedding = TextEmbedding(c.vocab_size, c.dim, [TokenDropout(c.dropout)])
    model = TiedModel(SequenceBackbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim)), TiedHead())
    initialise_as_gpt2(model, c.depth)
    return model


VARIANTS = {
    "text_decoder_tiny": TextDecoderConfig(dim=128, depth=4, num_heads=4),
    "text_decoder_small": TextDecoderConfig(dim=192, depth=6, num_heads=6),
    "text_decoder_base": TextDecoderConfig(dim=384, depth=6, num_heads=6),
}
