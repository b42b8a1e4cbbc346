"""Transformer encoder as a classifier of sentences, trained from scratch.

The encoder of "Attention Is All You Need", section 3.1, with norms first, and the mean over the tokens as the sentence
vector. Sizes are ours, chosen for data sets of some thousand sentences:

| model | layers | C | MLP | heads |
|---|---|---|---|---|
| tiny | 2 | 128 | 256 | 4 |
| small | 4 | 256 | 512 | 4 |
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.blocks import Block
from vitrail.parts.causal_attend import DropoutAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.heads import LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.sequence_model import SequenceBackbone, SequenceModel
from vitrail.parts.sequence_positions import SinusoidalPosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import MeanOfSequence
from vitrail.parts.token_mixers.self_attention import SelfAttention


@dataclass(frozen=True)
class TextEncoderConfig:
    """The numbers of a Transformer encoder for sentences."""

    dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 2.0
    vocab_size: int = 16000
    dropout: float = 0.3
    num_classes: int = 2


def build(config: TextEncoderConfig) -> SequenceModel:
    """Assemble a Transformer encoder and its classifier from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["text_encoder_tiny"])
        >>> sum(value.numel() for value in model.parameters())
        2313474
    """
    c = config
    steps = [SinusoidalPosition(c.dim), TokenDropout(c.dropout)]
    embedding = TextEmbedding(c.vocab_size, c.dim, steps, scale=c.dim**0.5)
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=SelfAttention(c.dim, c.num_heads, attend=DropoutAttend(c.dropout)),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    backbone = SequenceBackbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim))
    model = SequenceModel(backbone, LinearHead(MeanOfSequence(), c.dim, c.num_classes))
    initialise(model)
    nn.init.normal_(embedding.words.weight, std=c.dim**-0.5)
    return model


VARIANTS = {
    "text_encoder_tiny": TextEncoderConfig(dim=128, depth=2, num_heads=4),
    "text_encoder_small": TextEncoderConfig(dim=256, depth=4, num_heads=4),
}
