"""BERT: an encoder that reads both directions, trained on masked words and on pairs of sentences.

"BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", Devlin et al., 2019, section 3, and
"Well-Read Students Learn Better", Turc et al., 2019, for the sizes below base:

| model | layers | C | heads |
|---|---|---|---|
| tiny | 2 | 128 | 2 |
| mini | 4 | 256 | 4 |
| small | 4 | 512 | 8 |
| medium | 8 | 512 | 8 |
| base | 12 | 768 | 12 |
| large | 24 | 1024 | 16 |

MiniLM ("MiniLM: Deep Self-Attention Distillation", 2020) has the same structure with C = 384 and 12 heads;
`all_minilm_l6_v2` ends in a sentence vector. Details that are easy to get wrong: norms come last, epsilon is 1e-12, the
embedding has a norm of its own, every token gets a segment, the word table is also the output layer and has a bias.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.parts.bert_heads import with_head
from vitrail.parts.causal_attend import DropoutAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_bert
from vitrail.parts.sequence_blocks import PostNormBlock
from vitrail.parts.sequence_model import SequenceBackbone, SequenceModel
from vitrail.parts.sequence_positions import SequencePosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import EachToken, SegmentEmbedding, TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead, WordTransform
from vitrail.parts.token_mixers.self_attention import SelfAttention


@dataclass(frozen=True)
class BertConfig:
    """The numbers of a BERT; `head` is pretraining, masked (words alone), classes, mean or vector (of a sentence).

    `classes` reads the first token through BERT's pooler, `mean` the mean of the tokens, as a sentence vector does.
    """

    dim: int
    depth: int
    num_heads: int
    vocab_size: int = 30522
    max_length: int = 512
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    head: str = "pretraining"
    num_classes: int = 2


def build(config: BertConfig) -> SequenceModel:
    """Assemble a BERT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["bert_tiny"])
        >>> sum(value.numel() for value in model.parameters())
        4433468
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
            token_mixer=SelfAttention(c.dim, c.num_heads, attend=DropoutAttend(c.dropout)),
            norm2=nn.LayerNorm(c.dim, eps=1e-12),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    embedding = TextEmbedding(c.vocab_size, c.dim, steps)
    backbone = SequenceBackbone(embedding, [Stage(blocks)], nn.Identity())

    def words() -> TiedHead:
        return TiedHead(WordTransform(c.dim, c.dim, nn.GELU()), bias=c.vocab_size)

    model = with_head(c.head, backbone, words, c.dim, c.num_classes, c.dropout)
    initialise_as_bert(model)
    return model


BASE = BertConfig(dim=768, depth=12, num_heads=12)
LARGE = BertConfig(dim=1024, depth=24, num_heads=16)
MINILM = BertConfig(dim=384, depth=12, num_heads=12, head="masked")

VARIANTS = {
    "bert_tiny": BertConfig(dim=128, depth=2, num_heads=2),
    "bert_mini": BertConfig(dim=256, depth=4, num_heads=4),
    "bert_small": BertConfig(dim=512, depth=4, num_heads=8),
    "bert_medium": BertConfig(dim=512, depth=8, num_heads=8),
    "bert_base_uncased": BASE,
    "bert_large_uncased": LARGE,
    "bert_base_cased": replace(BASE, vocab_size=28996),
    "bert_large_cased": replace(LARGE, vocab_size=28996),
    "minilm_l12_h384_uncased": MINILM,
    "all_minilm_l6_v2": replace(MINILM, depth=6, head="vector"),
    "all_minilm_l12_v2": replace(MINILM, head="vector"),
}
