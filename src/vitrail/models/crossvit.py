"""CrossViT: two ViTs at two scales, whose class tokens read each other's patches.

"CrossViT: Cross-Attention Multi-Scale Vision Transformer for Image Classification", Chen et al., 2021, table 1 (C of
the fine and of the coarse branch; blocks of the coarse branch in each of 3 multi-scale blocks, the fine one has 1):

| model | C | coarse blocks | heads | MLP |
|---|---|---|---|---|
| Ti, S, B | 96/192, 192/384, 384/768 | 4 | 3, 6, 12 | 4 |
| 9, 15, 18 | 128/256, 192/384, 224/448 | 3, 5, 6 | 4, 6, 7 | 3 |

The fine branch has patches of 12 pixels, the coarse one of 16, in the image resized to 14/15 of its side (240 to 224;
408 to 384). Dagger models cut patches by three convolutions. Details that are easy to get wrong: no MLP follows the
attention across scales; the logits of the two class tokens are averaged.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.backbone import Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.two_scales import (
    CrossFusion,
    ThreeConvPatches,
    TwoScaleBackbone,
    TwoScaleBlock,
    TwoScaleEmbedding,
    TwoScaleHead,
    TwoScaleNorm,
)
from vitrail.preprocess import Preprocess

PATCHES = {"linear": PatchEmbedding, "conv": ThreeConvPatches}
AT_240, AT_408 = Preprocess(240, crop=0.875), Preprocess(408, crop=1.0)


@dataclass(frozen=True)
class CrossViTConfig:
    """The numbers of a CrossViT; `patches` is `linear` or `conv` (dagger), `depth` counts multi-scale blocks."""

    fine_dim: int
    coarse_dim: int
    coarse_depth: int
    num_heads: int
    depth: int = 3
    mlp_ratio: float = 4.0
    patches: str = "linear"
    fine_patch: int = 12
    coarse_patch: int = 16
    scale: float = 224 / 240
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_240


def build(config: CrossViTConfig) -> Classifier:
    """Assemble a CrossViT from its numbers.

    Raises:
        VitrailError: if `patches` is neither `linear` nor `conv`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["crossvit_tiny_240"])
        >>> sum(value.numel() for value in model.parameters())
        7014800
    """
    c = config
    if c.patches not in PATCHES:
        raise unknown("patches", c.patches, PATCHES)
    fine = build_embedding(c, c.fine_dim, c.fine_patch, c.preprocess.size)
    coarse = build_embedding(c, c.coarse_dim, c.coarse_patch, int(c.preprocess.size * c.scale))
    rates = drop_path_rates(c.drop_path, c.depth * c.coarse_depth)
    blocks = [build_scales(c, rates[i * c.coarse_depth : (i + 1) * c.coarse_depth]) for i in range(c.depth)]
    norm = TwoScaleNorm(c.fine_dim, c.coarse_dim)
    backbone = TwoScaleBackbone(TwoScaleEmbedding(fine, coarse, c.scale), blocks, norm)
    model = Classifier(backbone, TwoScaleHead(c.fine_dim, c.coarse_dim, c.num_classes))
    initialise(model)
    return model


def build_embedding(c: CrossViTConfig, dim: int, patch_size: int, size: int) -> Embedding:
    """Assemble the embedding of one scale, for images of `size` pixels."""
    side = -(-size // patch_size)
    steps = [PrefixTokens(dim), LearnedPosition(dim, Grid(side, side, prefix=1))]
    return Embedding(PATCHES[c.patches](c.in_channels, dim, patch_size), steps)


def build_scales(c: CrossViTConfig, rates: list[float]) -> TwoScaleBlock:
    """Assemble one multi-scale block: one block on fine tokens, several on coarse ones, and their fusion."""
    fusions = [
        CrossFusion(c.fine_dim, c.coarse_dim, c.num_heads, rates[-1]),
        CrossFusion(c.coarse_dim, c.fine_dim, c.num_heads, rates[-1]),
    ]
    coarse = [build_block(c, c.coarse_dim, rate) for rate in rates]
    return TwoScaleBlock([build_block(c, c.fine_dim, rates[0])], coarse, fusions)


def build_block(c: CrossViTConfig, dim: int, rate: float) -> Block:
    """Assemble one block of one scale."""
    return Block(
        norm1=nn.LayerNorm(dim, eps=1e-6),
        token_mixer=SelfAttention(dim, c.num_heads),
        norm2=nn.LayerNorm(dim, eps=1e-6),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
    )


NINE = CrossViTConfig(fine_dim=128, coarse_dim=256, coarse_depth=3, num_heads=4, mlp_ratio=3.0)
FIFTEEN = CrossViTConfig(fine_dim=192, coarse_dim=384, coarse_depth=5, num_heads=6, mlp_ratio=3.0)
EIGHTEEN = CrossViTConfig(fine_dim=224, coarse_dim=448, coarse_depth=6, num_heads=7, mlp_ratio=3.0)
LARGER = {"patches": "conv", "scale": 384 / 408, "preprocess": AT_408}

VARIANTS = {
    "crossvit_tiny_240": CrossViTConfig(fine_dim=96, coarse_dim=192, coarse_depth=4, num_heads=3),
    "crossvit_small_240": CrossViTConfig(fine_dim=192, coarse_dim=384, coarse_depth=4, num_heads=6),
    "crossvit_base_240": CrossViTConfig(fine_dim=384, coarse_dim=768, coarse_depth=4, num_heads=12),
    "crossvit_9_240": NINE,
    "crossvit_15_240": FIFTEEN,
    "crossvit_18_240": EIGHTEEN,
    "crossvit_9_dagger_240": replace(NINE, patches="conv"),
    "crossvit_15_dagger_240": replace(FIFTEEN, patches="conv"),
    "crossvit_15_dagger_408": replace(FIFTEEN, **LARGER),
    "crossvit_18_dagger_240": replace(EIGHTEEN, patches="conv"),
    "crossvit_18_dagger_408": replace(EIGHTEEN, **LARGER),
}
