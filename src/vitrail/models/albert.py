"""ALBERT: a BERT whose layers share their weights, with a narrow word table.

"ALBERT: A Lite BERT for Self-supervised Learning of Language Representations", Lan et al., 2020, table 1:

| model | layers | C | heads | word table |
|---|---|---|---|---|
| base | 12 | 768 | 12 | 128 |
| large | 24 | 1024 | 16 | 128 |
| xlarge | 24 | 2048 | 16 | 128 |
| xxlarge | 12 | 4096 | 64 | 128 |

Details that are easy to get wrong: positions, segments and the norm of the embedding are as narrow as the word table,
the projection to C follows them; GELU is the tanh approximation; version 2 has no dropout.
The second head predicts the order of two sentences (section 3.1), not whether they are neighbours.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.layouts import Layout
from vitrail.parts.bert_heads import with_head
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_bert
from vitrail.parts.sequence_blocks import PostNormBlock
from vitrail.parts.sequence_model import SequenceBackbone, SequenceModel
from vitrail.parts.sequence_positions import SequencePosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import EachToken, SegmentEmbedding, TextEmbedding
from vitrail.parts.text_heads import TiedHead, WordTransform
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.shapes import Tokens

CLASSIFIER_DROPOUT = 0.1  # as the authors fine-tune; the encoder has none


@dataclass(frozen=True)
class AlbertConfig:
    """The numbers of an ALBERT; `head` is one of BERT's kinds, see `bert`."""

    dim: int
    depth: int
    num_heads: int
    word_dim: int = 128
    vocab_size: int = 30000
    max_length: int = 512
    mlp_ratio: float = 4.0
    head: str = "pretraining"
    num_classes: int = 2


class SharedBlock(nn.Module):
    """One block applied several times: cross-layer parameter sharing, "ALBERT", section 3.1.

    Args:
        block: `(x, layout) -> x`.
        depth: how often it is applied.
    """

    def __init__(self, block: nn.Module, depth: int):
        super().__init__()
        self.block, self.depth = block, depth

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Apply the block `depth` times."""
        for _ in range(self.depth):
            x = self.block(x, grid)
        return x


def build(config: AlbertConfig) -> SequenceModel:
    """Assemble an ALBERT from its numbers."""
    c = config
    steps = [
        SequencePosition(c.word_dim, c.max_length),
        SegmentEmbedding(2, c.word_dim),
        EachToken(nn.LayerNorm(c.word_dim, eps=1e-12)),
        EachToken(nn.Linear(c.word_dim, c.dim)),
    ]
    block = PostNormBlock(
        norm1=nn.LayerNorm(c.dim, eps=1e-12),
        token_mixer=SelfAttention(c.dim, c.num_heads),
        norm2=nn.LayerNorm(c.dim, eps=1e-12),
        channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio), nn.GELU(approximate="tanh")),
    )
    embedding = TextEmbedding(c.vocab_size, c.word_dim, steps)
    backbone = SequenceBackbone(embedding, [Stage([SharedBlock(block, c.depth)])], nn.Identity())

    def words() -> TiedHead:
        return TiedHead(WordTransform(c.dim, c.word_dim, nn.GELU(approximate="tanh")), bias=c.vocab_size)

    model = with_head(c.head, backbone, words, c.dim, c.num_classes, CLASSIFIER_DROPOUT)
    initialise_as_bert(model)
    return model


VARIANTS = {
    "albert_base_v2": AlbertConfig(dim=768, depth=12, num_heads=12),
    "albert_large_v2": AlbertConfig(dim=1024, depth=24, num_heads=16),
    "albert_xlarge_v2": AlbertConfig(dim=2048, depth=24, num_heads=16),
    "albert_xxlarge_v2": AlbertConfig(dim=4096, depth=12, num_heads=64),
}
