"""ConvBERT: a BERT in which half of each attention is a convolution with kernels that depend on the span.

"ConvBERT: Improving BERT with Span-based Dynamic Convolution", Jiang et al., 2020, table 1:

| model | layers | C | heads | kernel |
|---|---|---|---|---|
| base | 12 | 768 | 12, halved | 9 |

Details that are easy to get wrong: the number of heads is divided by 2 and so are the channels of queries, keys and
values; the kernel comes from the product of queries and the span convolution; the head (of an ELECTRA generator) has
activation and norm before the word table.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.causal_attend import DropoutAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_bert
from vitrail.parts.sequence_blocks import PostNormBlock
from vitrail.parts.sequence_model import SequenceBackbone, TiedModel
from vitrail.parts.sequence_positions import SequencePosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import EachToken, SegmentEmbedding, TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead, WordTransform
from vitrail.parts.token_mixers.mixed_attention import MixedAttention


@dataclass(frozen=True)
class ConvBertConfig:
    """The numbers of a ConvBERT."""

    dim: int
    depth: int
    num_heads: int
    kernel_size: int = 9
    head_ratio: int = 2
    vocab_size: int = 30522
    max_length: int = 512
    mlp_ratio: float = 4.0
    dropout: float = 0.1


def build(config: ConvBertConfig) -> TiedModel:
    """Assemble a ConvBERT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["conv_bert_base"])
        >>> sum(value.numel() for value in model.parameters())
        106303170
    """
    c = config
    steps = [
        SequencePosition(c.dim, c.max_length),
        SegmentEmbedding(2, c.dim),
        EachToken(nn.LayerNorm(c.dim, eps=1e-12)),
        TokenDropout(c.dropout),
    ]
    blocks = [
        PostNormBlock(
            norm1=nn.LayerNorm(c.dim, eps=1e-12),
            token_mixer=MixedAttention(c.dim, c.num_heads, c.head_ratio, c.kernel_size, DropoutAttend(c.dropout)),
            norm2=nn.LayerNorm(c.dim, eps=1e-12),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    backbone = SequenceBackbone(TextEmbedding(c.vocab_size, c.dim, steps), [Stage(blocks)], nn.Identity())
    model = TiedModel(backbone, TiedHead(WordTransform(c.dim, c.dim, nn.GELU()), bias=c.vocab_size))
    initialise_as_bert(model)
    return model


VARIANTS = {
    "conv_bert_base": ConvBertConfig(dim=768, depth=12, num_heads=12),
}
