"""GPT-2: a decoder that predicts the next token.

"Language Models are Unsupervised Multitask Learners", Radford et al., 2019, table 2:

| model | layers | C | heads |
|---|---|---|---|
| gpt2 | 12 | 768 | 12 |
| gpt2_medium | 24 | 1024 | 16 |
| gpt2_large | 36 | 1280 | 20 |
| gpt2_xl | 48 | 1600 | 25 |

`distilgpt2` (Hugging Face, 2019) has 6 layers of the smallest. Details that are easy to get wrong: norms come first and
a last norm follows the blocks, GELU is the tanh approximation, the word table is also the output layer, and projections
back into the residual start smaller by sqrt(2 * layers) (section 2.3 gives sqrt of the number of residual branches).
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.blocks import Block
from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_gpt2
from vitrail.parts.sequence_model import SequenceBackbone, TiedModel
from vitrail.parts.sequence_positions import SequencePosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead
from vitrail.parts.token_mixers.causal_attention import CausalAttention


@dataclass(frozen=True)
class GPT2Config:
    """The numbers of a GPT-2."""

    dim: int
    depth: int
    num_heads: int
    vocab_size: int = 50257
    max_length: int = 1024
    mlp_ratio: float = 4.0
    dropout: float = 0.1


def build(config: GPT2Config) -> TiedModel:
    """Assemble a GPT-2 from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["gpt2"])
        >>> sum(value.numel() for value in model.parameters())
        124439808
    """
    c = config
    embedding = TextEmbedding(c.vocab_size, c.dim, [SequencePosition(c.dim, c.max_length), TokenDropout(c.dropout)])
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=CausalAttention(c.dim, c.num_heads, attend=CausalAttend(c.dropout)),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio), nn.GELU(approximate="tanh")),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    model = TiedModel(SequenceBackbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim)), TiedHead())
    initialise_as_gpt2(model, c.depth)
    return model


VARIANTS = {
    "gpt2": GPT2Config(dim=768, depth=12, num_heads=12),
    "gpt2_medium": GPT2Config(dim=1024, depth=24, num_heads=16),
    "gpt2_large": GPT2Config(dim=1280, depth=36, num_heads=20),
    "gpt2_xl": GPT2Config(dim=1600, depth=48, num_heads=25),
    "distilgpt2": GPT2Config(dim=768, depth=6, num_heads=12),
}
