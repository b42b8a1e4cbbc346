"""GPT: the first decoder that was pretrained on plain text, then fine-tuned.

"Improving Language Understanding by Generative Pre-Training", Radford et al., 2018, section 4.1: 12 layers, C = 768,
12 heads, positions for 512 tokens, 40,478 words (40,000 merges of byte pairs and 478 characters).

Details that are easy to get wrong: norms come last, as in the first Transformer, so no norm follows the blocks (GPT-2
put them first); GELU is the tanh approximation; the word table is also the output layer.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_bert
from vitrail.parts.sequence_blocks import PostNormBlock
from vitrail.parts.sequence_model import SequenceBackbone, TiedModel
from vitrail.parts.sequence_positions import SequencePosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead
from vitrail.parts.token_mixers.causal_attention import CausalAttention


@dataclass(frozen=True)
class GPTConfig:
    """The numbers of a GPT."""

    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    vocab_size: int = 40478
    max_length: int = 512
    mlp_ratio: float = 4.0
    dropout: float = 0.1


def build(config: GPTConfig) -> TiedModel:
    """Assemble a GPT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["openai_gpt"])
        >>> sum(value.numel() for value in model.parameters())
        116534784
    """
    c = config
    embedding = TextEmbedding(c.vocab_size, c.dim, [SequencePosition(c.dim, c.max_length), TokenDropout(c.dropout)])
    blocks = [
        PostNormBlock(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=CausalAttention(c.dim, c.num_heads, attend=CausalAttend(c.dropout)),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio), nn.GELU(approximate="tanh")),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    model = TiedModel(SequenceBackbone(embedding, [Stage(blocks)], nn.Identity()), TiedHead())
    initialise_as_bert(model)
    return model


VARIANTS = {"openai_gpt": GPTConfig()}
