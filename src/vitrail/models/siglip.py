"""SigLIP: the image towers of models trained on pairs of image and text by a sigmoid loss.

"Sigmoid Loss for Language Image Pre-Training", Zhai et al., 2023; sizes of "Scaling Vision Transformers" and, for
SoViT-400m, "Getting ViT in Shape", Alabdulmohsin et al., 2023:

| model | layers | C | MLP | heads |
|---|---|---|---|---|
| B | 12 | 768 | 3072 | 12 |
| L | 24 | 1024 | 4096 | 16 |
| So400m | 27 | 1152 | 4304 | 16 |

A ViT without class token: one learned query pools the tokens by attention (`pool="map"`), or their mean is taken
(`gap`). The released towers have no head for classes (`num_classes=0`). Details that are easy to get wrong: the last
norm comes before the pooling in both; inputs are scaled to -1..1; the GELU is timm's of each variant (the authors' code
and transformers use the tanh approximation everywhere).
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.attention_pooling import AttentionPooling
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

GELUS, POOLS = {"exact": "none", "tanh": "tanh"}, ("map", "mean")
AT_224 = Preprocess(mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class SigLIPConfig:
    """The numbers of a SigLIP tower: `pool` is `map` or `mean`, `gelu` is `exact` or `tanh`."""

    dim: int
    depth: int
    num_heads: int
    patch_size: int = 16
    mlp_ratio: float = 4.0
    pool: str = "map"
    gelu: str = "exact"
    drop_path: float = 0.0
    num_classes: int = 0
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: SigLIPConfig) -> Classifier:
    """Assemble a SigLIP tower from its numbers.

    Raises:
        VitrailError: if `pool` is neither `map` nor `mean`, or `gelu` neither `exact` nor `tanh`.
    """
    c = config
    for field, value, valid in (("pool", c.pool, POOLS), ("gelu", c.gelu, GELUS)):
        if value not in valid:
            raise unknown(field, value, valid)
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size), [LearnedPosition(c.dim, Grid(side, side))]
    )
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=SelfAttention(c.dim, c.num_heads),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=build_mlp(c),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    pool = AttentionPooling(c.dim, c.num_heads, build_mlp(c)) if c.pool == "map" else MeanToken()
    model = Classifier(backbone, LinearHead(pool, c.dim, c.num_classes))
    initialise(model)
    return model


def build_mlp(c: SigLIPConfig) -> MLP:
    """Assemble the MLP of a block or of the pooling."""
    return MLP(c.dim, int(c.dim * c.mlp_ratio), nn.GELU(approximate=GELUS[c.gelu]))


def sized(config: SigLIPConfig, size: int, gelu: str = "exact") -> SigLIPConfig:
    """Return the tower for images of another size."""
    return replace(config, gelu=gelu, preprocess=replace(AT_224, size=size))


BASE = SigLIPConfig(dim=768, depth=12, num_heads=12)
LARGE = SigLIPConfig(dim=1024, depth=24, num_heads=16)
SO400M = SigLIPConfig(dim=1152, depth=27, num_heads=16, patch_size=14, mlp_ratio=3.7362)

TOWERS = {
    **{("base_patch16", size): sized(BASE, size) for size in (224, 256, 384, 512)},
    **{("large_patch16", size): sized(LARGE, size) for size in (256, 384)},
    ("large_patch16", 512): sized(LARGE, 512, gelu="tanh"),
    **{("so400m_patch14", size): sized(SO400M, size) for size in (224, 378)},
}

VARIANTS = {
    **{f"vit_{name}_siglip_{size}": config for (name, size), config in TOWERS.items()},
    **{f"vit_{name}_siglip_gap_{size}": replace(config, pool="mean") for (name, size), config in TOWERS.items()},
}
