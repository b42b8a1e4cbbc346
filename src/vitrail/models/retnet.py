"""RetNet: a language model whose retention trains in parallel and decodes as a recurrence.

"Retentive Network: A Successor to Transformer for Large Language Models", Sun et al., 2023, table 2:

| model | layers | C | hidden | heads |
|---|---|---|---|---|
| 1.3B | 24 | 2048 | 4096 | 8 |
| 2.7B | 32 | 2560 | 5120 | 10 |
| 6.7B | 32 | 4096 | 8192 | 16 |

Values are twice as wide as queries and keys, MLPs twice as wide as tokens, which makes 12 C^2 weights a layer as in a
Transformer. The vocabulary is GPT-2's here (the paper does not state its own), the word table is also the output layer.
`parts/token_mixers/retention.py::use_retention` changes the form of the computation.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_retnet
from vitrail.parts.sequence_model import SequenceBackbone, TiedModel
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead
from vitrail.parts.token_mixers.retention import Retention

EPS = 1e-12  # small enough that the norm removes the scales in which the forms differ


@dataclass(frozen=True)
class RetNetConfig:
    """The numbers of a RetNet."""

    dim: int
    depth: int
    num_heads: int
    vocab_size: int = 50257
    mlp_ratio: float = 2.0
    dropout: float = 0.1


def build(config: RetNetConfig) -> TiedModel:
    """Assemble a RetNet from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["retnet_1b3"])
        >>> sum(value.numel() for value in model.parameters())
        1311234048
    """
    c = config
    embedding = TextEmbedding(c.vocab_size, c.dim, [TokenDropout(c.dropout)])
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=Retention(c.dim, c.num_heads, eps=EPS),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    model = TiedModel(SequenceBackbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim)), TiedHead())
    initialise_as_retnet(model)
    return model


VARIANTS = {
    "retnet_1b3": RetNetConfig(dim=2048, depth=24, num_heads=8),
    "retnet_2b7": RetNetConfig(dim=2560, depth=32, num_heads=10),
    "retnet_6b7": RetNetConfig(dim=4096, depth=32, num_heads=16),
}
