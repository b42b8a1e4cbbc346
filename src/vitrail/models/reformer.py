"""Reformer: a language model of long texts, with hashed and local attention in reversible layers.

"Reformer: The Efficient Transformer", Kitaev, Kaiser, Levskaya, 2020; sizes of the released weights:

| model | layers | C | heads x width | positions | chunks | buckets x rounds |
|---|---|---|---|---|---|---|
| crime-and-punishment | 6, local and LSH by turns | 256 | 2 x 64 | 512 x 1024 | 64 | 64 * 128 x 1 |
| enwik8 | 12, every fourth LSH from the third on | 1024 | 8 x 128 | 128 x 512 | 128, LSH 256 | 512 x 4 |

Details that are easy to get wrong: both streams of the reversible layers go side by side into the last norm, so the
head reads 2 C channels and has a table of its own; attention has no biases; the activation is ReLU; queries of LSH
attention are its keys, so a token sees itself only if it must.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.axial_position import AxialPosition
from vitrail.parts.causal_attend import DropoutAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise_as_bert
from vitrail.parts.rereading import RereadingBackbone
from vitrail.parts.reversible import ReversibleBlock, ReversibleStage
from vitrail.parts.sequence_model import TiedModel
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import UntiedHead
from vitrail.parts.token_mixers.chunked_attention import CausalLSHAttention, LocalChunkAttention


@dataclass(frozen=True)
class ReformerConfig:
    """The numbers of a Reformer; `attn_layers` has `local` or `lsh` for each layer."""

    dim: int
    num_heads: int
    head_dim: int
    attn_layers: tuple[str, ...]
    position_shape: tuple[int, ...]
    position_dims: tuple[int, ...]
    hidden: int
    local_chunk: int
    lsh_chunk: int
    buckets: tuple[int, ...]
    rounds: int
    hash_seed: int = 0
    vocab_size: int = 320
    dropout: float = 0.05

    @property
    def max_length(self) -> int:
        """Positions: rows by columns."""
        return self.position_shape[0] * self.position_shape[1]


def build(config: ReformerConfig) -> TiedModel:
    """Assemble a Reformer from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["reformer_crime_and_punishment"])
        >>> sum(value.numel() for value in model.parameters())
        2748224
    """
    c = config
    blocks = [
        ReversibleBlock(
            norm1=nn.LayerNorm(c.dim, eps=1e-12),
            token_mixer=_attention(kind, c),
            norm2=nn.LayerNorm(c.dim, eps=1e-12),
            channel_mixer=MLP(c.dim, c.hidden, nn.ReLU()),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for kind in c.attn_layers
    ]
    steps = [AxialPosition(c.position_shape, c.position_dims), TokenDropout(c.dropout)]
    embedding = TextEmbedding(c.vocab_size, c.dim, steps)
    backbone = RereadingBackbone(embedding, [ReversibleStage(blocks)], nn.LayerNorm(2 * c.dim, eps=1e-12))
    model = TiedModel(backbone, UntiedHead(2 * c.dim, c.vocab_size, bias=True))
    initialise_as_bert(model)
    return model


def _attention(kind: str, c: ReformerConfig) -> nn.Module:
    if kind == "local":
        return LocalChunkAttention(c.dim, c.num_heads, c.head_dim, c.local_chunk, DropoutAttend(c.dropout))
    if kind == "lsh":
        multiple = max(c.local_chunk, c.lsh_chunk) if "local" in c.attn_layers else c.lsh_chunk
        rule = {"buckets": c.buckets, "rounds": c.rounds, "chunk": c.lsh_chunk, "multiple": multiple}
        return CausalLSHAttention(c.dim, c.num_heads, c.head_dim, **rule, seed=c.hash_seed)
    raise unknown("layer of attn_layers", kind, ("local", "lsh"))


VARIANTS = {
    "reformer_crime_and_punishment": ReformerConfig(
        dim=256,
        num_heads=2,
        head_dim=64,
        attn_layers=("local", "lsh") * 3,
        position_shape=(512, 1024),
        position_dims=(64, 192),
        hidden=512,
        local_chunk=64,
        lsh_chunk=64,
        buckets=(64, 128),
        rounds=1,
    ),
    "reformer_enwik8": ReformerConfig(
        dim=1024,
        num_heads=8,
        head_dim=128,
        attn_layers=("local", "local", "lsh", "local") * 3,
        position_shape=(128, 512),
        position_dims=(256, 768),
        hidden=4096,
        local_chunk=128,
        lsh_chunk=256,
        buckets=(512,),
        rounds=4,
        vocab_size=258,
        dropout=0.2,
    ),
}
