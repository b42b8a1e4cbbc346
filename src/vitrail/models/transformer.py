"""Transformer: the encoder-decoder of "Attention Is All You Need", Vaswani et al., 2017, table 3:

| model | layers | C | MLP | heads | dropout |
|---|---|---|---|---|---|
| base | 6 + 6 | 512 | 2048 | 8 | 0.1 |
| big | 6 + 6 | 1024 | 4096 | 16 | 0.3 |

One table of words serves source, target and output (section 3.4); its vectors are multiplied by sqrt(C) on their way
in. `norm` places the norms last (the paper) or first, where a last norm follows each stack. `transformer_tiny_multi30k`
has the numbers of the text-only model of "Good for Misconceived Reasons", Wu et al., 2021, section 4. `opus_mt` is
Marian's form of base: sines before cosines, SiLU, a bias for each word.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.blocks import Block
from vitrail.parts.causal_attend import CausalAttend, DropoutAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.encoder_decoder import EncoderDecoder
from vitrail.parts.initialisation import initialise
from vitrail.parts.sequence_blocks import DecoderBlock, PostNormBlock, PostNormDecoderBlock
from vitrail.parts.sequence_positions import SinusoidalPosition, SplitSinusoidalPosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead
from vitrail.parts.token_mixers.causal_attention import CausalAttention
from vitrail.parts.token_mixers.cross_attention import CrossAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention


@dataclass(frozen=True)
class TransformerConfig:
    """The numbers of a Transformer; `norm` is post or pre, `form` is paper or marian."""

    dim: int
    depth: int
    num_heads: int
    hidden: int
    vocab_size: int = 37000
    dropout: float = 0.1
    norm: str = "post"
    form: str = "paper"


@dataclass(frozen=True)
class Placement:
    """Blocks of one placement of the norms, and the norm after each stack."""

    encoder_block: Callable[..., nn.Module]
    decoder_block: Callable[..., nn.Module]
    last: Callable[[int], nn.Module]


NORMS = {
    "post": Placement(PostNormBlock, PostNormDecoderBlock, lambda dim: nn.Identity()),
    "pre": Placement(Block, DecoderBlock, nn.LayerNorm),
}
FORMS: dict[str, tuple[type[SinusoidalPosition], type[nn.Module], bool]] = {
    "paper": (SinusoidalPosition, nn.ReLU, False),
    "marian": (SplitSinusoidalPosition, nn.SiLU, True),
}


def build(config: TransformerConfig) -> EncoderDecoder:
    """Assemble a Transformer from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["transformer_base_wmt_en_de"])
        >>> sum(value.numel() for value in model.parameters())
        63082496
    """
    c = config
    if c.norm not in NORMS:
        raise unknown("norm", c.norm, NORMS)
    if c.form not in FORMS:
        raise unknown("form", c.form, FORMS)
    place, (position, act, bias) = NORMS[c.norm], FORMS[c.form]
    steps = [position(c.dim), TokenDropout(c.dropout)]
    embedding = TextEmbedding(c.vocab_size, c.dim, steps, scale=c.dim**0.5)
    encoder = [
        place.encoder_block(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=SelfAttention(c.dim, c.num_heads, attend=DropoutAttend(c.dropout)),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, c.hidden, act()),
            scale1=nn.Dropout(c.dropout),
            scale2=nn.Dropout(c.dropout),
        )
        for _ in range(c.depth)
    ]
    decoder = [
        place.decoder_block(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=CausalAttention(c.dim, c.num_heads, attend=CausalAttend(c.dropout)),
            norm_cross=nn.LayerNorm(c.dim),
            cross_mixer=CrossAttention(c.dim, c.num_heads, attend=DropoutAttend(c.dropout)),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, c.hidden, act()),
            dropout=c.dropout,
        )
        for _ in range(c.depth)
    ]
    model = EncoderDecoder(
        embedding,
        Stage(encoder),
        place.last(c.dim),
        Stage(decoder),
        place.last(c.dim),
        TiedHead(bias=c.vocab_size if bias else 0),
    )
    initialise(model)
    nn.init.normal_(embedding.words.weight, std=c.dim**-0.5)
    return model


VARIANTS = {
    "transformer_base_wmt_en_de": TransformerConfig(dim=512, depth=6, num_heads=8, hidden=2048),
    "transformer_big_wmt_en_de": TransformerConfig(dim=1024, depth=6, num_heads=16, hidden=4096, dropout=0.3),
    "transformer_tiny_multi30k": TransformerConfig(128, 4, 4, hidden=256, vocab_size=10000, dropout=0.3),
    "opus_mt_en_de": TransformerConfig(512, 6, 8, hidden=2048, vocab_size=58101, form="marian"),
}
