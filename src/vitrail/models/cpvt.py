"""CPVT: a ViT whose positions are generated from the map by a convolution, so any image size works.

"Conditional Positional Encodings for Vision Transformers", Chu et al., 2023, section 4 and table 2:

| model | layers | C | heads |
|---|---|---|---|
| Ti | 12 | 192 | 3 |
| S | 12 | 384 | 6 |
| B | 12 | 768 | 12 |

The structure is DeiT's without its position table: a PEG follows the first block (`pegs` of them: the first blocks, one
each; the paper's double-dagger rows have 5). Details that are easy to get wrong: the class token passes the PEG, and
the zero padding around the map makes positions absolute. GAP variants have no class token: the head reads the mean of
the cells. The authors released no code; names and normalisation follow DeiT.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.heads import FirstToken, LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.peg import PEG
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

POOLS = ("token", "mean")
AT_224 = Preprocess()


@dataclass(frozen=True)
class CPVTConfig:
    """The numbers of a CPVT; `pool` is `token` (class token) or `mean` (of the cells, without class token)."""

    dim: int
    num_heads: int
    depth: int = 12
    pegs: int = 1
    pool: str = "token"
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: CPVTConfig) -> Classifier:
    """Assemble a CPVT from its numbers.

    Raises:
        VitrailError: if `pool` is neither `token` nor `mean`, or there are more PEGs than blocks.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["cpvt_tiny"])
        >>> sum(value.numel() for value in model.parameters())
        5681512
    """
    c = config
    if c.pool not in POOLS:
        raise unknown("pool", c.pool, POOLS)
    if c.pegs > c.depth:
        raise VitrailError(f"{c.pegs} PEGs need as many blocks, got depth={c.depth}. Set pegs to at most {c.depth}.")
    with_class = c.pool == "token"
    steps = [PrefixTokens(c.dim)] if with_class else []
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size), steps)
    blocks: list[nn.Module] = []
    for i, rate in enumerate(drop_path_rates(c.drop_path, c.depth)):
        blocks.append(build_block(c, rate))
        if i < c.pegs:
            blocks.append(PEG(c.dim))
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    pool = FirstToken() if with_class else MeanToken()
    model = Classifier(backbone, LinearHead(pool, c.dim, c.num_classes))
    initialise(model)
    return model


def build_block(c: CPVTConfig, rate: float) -> Block:
    """Assemble one block."""
    return Block(
        norm1=nn.LayerNorm(c.dim, eps=1e-6),
        token_mixer=SelfAttention(c.dim, c.num_heads),
        norm2=nn.LayerNorm(c.dim, eps=1e-6),
        channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
        drop_path=rate,
    )


TINY = CPVTConfig(dim=192, num_heads=3)
SMALL = CPVTConfig(dim=384, num_heads=6)
BASE = CPVTConfig(dim=768, num_heads=12)

VARIANTS = {
    "cpvt_tiny": TINY,
    "cpvt_tiny_peg5": replace(TINY, pegs=5),
    "cpvt_tiny_gap": replace(TINY, pool="mean"),
    "cpvt_small": SMALL,
    "cpvt_small_peg5": replace(SMALL, pegs=5),
    "cpvt_small_gap": replace(SMALL, pool="mean"),
    "cpvt_base": BASE,
    "cpvt_base_peg5": replace(BASE, pegs=5),
    "cpvt_base_gap": replace(BASE, pool="mean"),
}
