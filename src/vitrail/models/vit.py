"""ViT: a picture is worth 16x16 words.

"An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", Dosovitskiy et al., 2021, table 1:

| model | layers | C | MLP | heads |
|---|---|---|---|---|
| Ti (DeiT's) | 12 | 192 | 768 | 3 |
| S (DeiT's) | 12 | 384 | 1536 | 6 |
| B | 12 | 768 | 3072 | 12 |
| L | 24 | 1024 | 4096 | 16 |
| H | 32 | 1280 | 5120 | 16 |

Details that are easy to get wrong: LayerNorm's epsilon is 1e-6, the position table includes the class token, the released
weights have no pre-logits layer, inputs are scaled to -1..1.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess


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
    preprocess: Preprocess = Preprocess(mean=HALF_MEAN, std=HALF_STD)


def build(config: ViTConfig) -> Classifier:
    """Assemble a ViT from its numbers."""
    c = config
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size),
        [PrefixTokens(c.dim), LearnedPosition(c.dim, Grid(side, side, prefix=1))],
    )
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=SelfAttention(c.dim, c.num_heads),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise(model)
    return model


SIZES = {
    "tiny": dict(dim=192, depth=12, num_heads=3),
    "small": dict(dim=384, depth=12, num_heads=6),
    "base": dict(dim=768, depth=12, num_heads=12),
    "large": dict(dim=1024, depth=24, num_heads=16),
    "huge": dict(dim=1280, depth=32, num_heads=16),
}

PUBLISHED = (
    "tiny 16 224, tiny 16 384, small 32 224, small 32 384, small 16 224, small 16 384, small 8 224, base 32 224, "
    "base 32 384, base 16 224, base 16 384, base 8 224, large 32 224, large 32 384, large 16 224, large 16 384, "
    "large 14 224, huge 14 224"
)


def _variant(size: str, patch: str, image: str) -> ViTConfig:
    preprocess = Preprocess(int(image), 0.9 if image == "224" else 1.0, mean=HALF_MEAN, std=HALF_STD)
    return ViTConfig(patch_size=int(patch), preprocess=preprocess, **SIZES[size])


VARIANTS = {
    f"vit_{size}_patch{patch}_{image}": _variant(size, patch, image)
    for size, patch, image in (row.split() for row in PUBLISHED.split(", "))
}
