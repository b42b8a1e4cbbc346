"""EVA-02: a plain ViT with the parts of language models, trained to predict the features of a CLIP model.

"EVA-02: A Visual Representation for Neon Genesis", Fang et al., 2023, table 1 and section 2:

| model | layers | C | heads | channel mixer |
|---|---|---|---|---|
| Ti | 12 | 192 | 3 | SwiGLU, 2 x 512 |
| S | 12 | 384 | 6 | SwiGLU, 2 x 1024 |
| B | 12 | 768 | 12 | SwiGLU with sub-LN, 2 x 2048 |
| L | 24 | 1024 | 16 | SwiGLU with sub-LN, 2 x 2730 |

Patches of 14 x 14 pixels; rotary positions on the scale of a 16 x 16 grid and learned ones; keys without a bias; the
head reads the normalised mean of the cells. The models of 224 pixels are pre-trained and have no classes.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.attend import check_heads
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import GatedMLP, NormedGatedMLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.grid_rotation import GridRotation
from vitrail.parts.heads import LinearHead, NormedMean
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.query_value_bias import QueryValueBias
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

CHANNEL_MIXERS = {"swiglu": GatedMLP, "swiglu_norm": NormedGatedMLP}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
AT_224 = Preprocess(224, crop=0.9, mean=CLIP_MEAN, std=CLIP_STD)
AT_336, AT_448 = replace(AT_224, size=336, crop=1.0), replace(AT_224, size=448, crop=1.0)
REFERENCE = 16


@dataclass(frozen=True)
class EVA02Config:
    """The numbers of an EVA-02; `channel_mixer` is `swiglu` or `swiglu_norm`."""

    dim: int
    depth: int
    num_heads: int
    channel_mixer: str = "swiglu"
    mlp_ratio: float = 8 / 3
    patch_size: int = 14
    drop_path: float = 0.0
    num_classes: int = 0
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: EVA02Config) -> Classifier:
    """Assemble an EVA-02 from its numbers.

    Raises:
        VitrailError: if `channel_mixer` is neither `swiglu` nor `swiglu_norm`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["eva02_tiny_patch14_224"])
        >>> sum(value.numel() for value in model.parameters())
        5502144
    """
    c = config
    if c.channel_mixer not in CHANNEL_MIXERS:
        raise unknown("channel_mixer", c.channel_mixer, CHANNEL_MIXERS)
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=attention(c),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=CHANNEL_MIXERS[c.channel_mixer](c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    side = -(-c.preprocess.size // c.patch_size)
    steps = [PrefixTokens(c.dim), LearnedPosition(c.dim, Grid(side, side, prefix=1))]
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size), steps)
    backbone = Backbone(embedding, [Stage(blocks)], nn.Identity())
    model = Classifier(backbone, LinearHead(NormedMean(c.dim), c.dim, c.num_classes))
    initialise(model)
    return model


def attention(c: EVA02Config) -> SelfAttention:
    """Assemble the attention of one block."""
    check_heads(c.dim, c.num_heads)
    mixer = SelfAttention(c.dim, c.num_heads, position=GridRotation(c.dim // c.num_heads, REFERENCE))
    mixer.qkv = QueryValueBias(c.dim)  # pyright: ignore[reportAttributeAccessIssue]
    return mixer


TINY = EVA02Config(dim=192, depth=12, num_heads=3)
SMALL = EVA02Config(dim=384, depth=12, num_heads=6)
BASE = EVA02Config(dim=768, depth=12, num_heads=12, channel_mixer="swiglu_norm")
LARGE = EVA02Config(dim=1024, depth=24, num_heads=16, channel_mixer="swiglu_norm")

VARIANTS = {
    "eva02_tiny_patch14_224": TINY,
    "eva02_small_patch14_224": SMALL,
    "eva02_base_patch14_224": BASE,
    "eva02_large_patch14_224": LARGE,
    "eva02_tiny_patch14_336": replace(TINY, num_classes=1000, preprocess=AT_336),
    "eva02_small_patch14_336": replace(SMALL, num_classes=1000, preprocess=AT_336),
    "eva02_base_patch14_448": replace(BASE, num_classes=1000, preprocess=AT_448),
    "eva02_large_patch14_448": replace(LARGE, num_classes=1000, preprocess=AT_448),
}
