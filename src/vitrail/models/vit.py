"""ViT: an image is worth 16x16 words.

"An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", Dosovitskiy et al., 2021, table 1:

| model | layers | C | MLP | heads |
|---|---|---|---|---|
| Ti (DeiT's) | 12 | 192 | 768 | 3 |
| S (DeiT's) | 12 | 384 | 1536 | 6 |
| B | 12 | 768 | 3072 | 12 |
| L | 24 | 1024 | 4096 | 16 |
| H | 32 | 1280 | 5120 | 16 |

Details that are easy to get wrong: LayerNorm's epsilon is 1e-6 (Hugging Face: 1e-12), the position table includes the
class token, the released weights have no pre-logits layer, inputs are scaled to -1..1.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise_as_vit
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

AT_224, AT_384 = Preprocess(mean=HALF_MEAN, std=HALF_STD), Preprocess(384, crop=1.0, mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class ViTConfig:
    """The numbers of a ViT."""

    patch_size: int
    dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    norm_eps: float = 1e-6
    preprocess: Preprocess = AT_224


def build(config: ViTConfig) -> Classifier:
    """Assemble a ViT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["vit_tiny_patch16_224"])
        >>> sum(value.numel() for value in model.parameters())
        5717416
    """
    c = config
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size),
        [PrefixTokens(c.dim), LearnedPosition(c.dim, Grid(side, side, prefix=1))],
    )
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=c.norm_eps),
            token_mixer=SelfAttention(c.dim, c.num_heads),
            norm2=nn.LayerNorm(c.dim, eps=c.norm_eps),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=c.norm_eps))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise_as_vit(model)
    return model


TINY = ViTConfig(patch_size=16, dim=192, depth=12, num_heads=3)
SMALL = ViTConfig(patch_size=16, dim=384, depth=12, num_heads=6)
BASE = ViTConfig(patch_size=16, dim=768, depth=12, num_heads=12)
LARGE = ViTConfig(patch_size=16, dim=1024, depth=24, num_heads=16)
HUGE = ViTConfig(patch_size=14, dim=1280, depth=32, num_heads=16)

VARIANTS = {
    "vit_tiny_patch16_224": TINY,
    "vit_tiny_patch16_384": replace(TINY, preprocess=AT_384),
    "vit_small_patch32_224": replace(SMALL, patch_size=32),
    "vit_small_patch32_384": replace(SMALL, patch_size=32, preprocess=AT_384),
    "vit_small_patch16_224": SMALL,
    "vit_small_patch16_384": replace(SMALL, preprocess=AT_384),
    "vit_small_patch8_224": replace(SMALL, patch_size=8),
    "vit_base_patch32_224": replace(BASE, patch_size=32),
    "vit_base_patch32_384": replace(BASE, patch_size=32, preprocess=AT_384),
    "vit_base_patch16_224": BASE,
    "vit_base_patch16_384": replace(BASE, preprocess=AT_384),
    "vit_base_patch8_224": replace(BASE, patch_size=8),
    "vit_large_patch32_224": replace(LARGE, patch_size=32),
    "vit_large_patch32_384": replace(LARGE, patch_size=32, preprocess=AT_384),
    "vit_large_patch16_224": LARGE,
    "vit_large_patch16_384": replace(LARGE, preprocess=AT_384),
    "vit_large_patch14_224": replace(LARGE, patch_size=14),
    "vit_huge_patch14_224": HUGE,
}
