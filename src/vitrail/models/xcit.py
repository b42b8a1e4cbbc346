"""XCiT: attention between channels, so that the cost grows linearly with the tokens.

"XCiT: Cross-Covariance Image Transformers", El-Nouby et al., 2021, table 1:

| model | layers | C | heads |
|---|---|---|---|
| N12 | 12 | 128 | 4 |
| T12, T24 | 12, 24 | 192 | 4 |
| S12, S24 | 12, 24 | 384 | 8 |
| M24 | 24 | 512 | 8 |
| L24 | 24 | 768 | 16 |

Two layers of class attention follow. Details that are easy to get wrong: patches come from a chain of convolutions;
neighbours are mixed between attention and MLP; LayerScale begins at 1 in 12 layers and at 1e-5 in 24; class attention
moves patches too, and N12 leaves them without the second norm (`class_norm="prefix"`).
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.conv_patches import ConvPatches
from vitrail.parts.embeddings import Embedding, PrefixTokens
from vitrail.parts.fourier_position import FourierPosition
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.cross_covariance import CrossCovarianceAttention
from vitrail.parts.token_mixers.local_patch_interaction import LocalPatchInteraction
from vitrail.parts.xcit_blocks import ClassBlock, LocalBlock, PrefixNormClassBlock
from vitrail.preprocess import Preprocess

CLASS_BLOCKS = {"all": ClassBlock, "prefix": PrefixNormClassBlock}
AT_224, AT_384 = Preprocess(crop=1.0), Preprocess(384, crop=1.0)


@dataclass(frozen=True)
class XCiTConfig:
    """The numbers of an XCiT; `class_norm` selects the tokens of the second norm of class attention."""

    dim: int
    depth: int
    num_heads: int
    class_depth: int = 2
    class_norm: str = "all"
    layer_scale: float = 1.0
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: XCiTConfig) -> Classifier:
    """Assemble an XCiT from its numbers.

    Raises:
        VitrailError: if `class_norm` is neither `all` nor `prefix`, or the patch size no power of two.
    """
    c = config
    if c.class_norm not in CLASS_BLOCKS:
        raise unknown("class_norm", c.class_norm, CLASS_BLOCKS)
    embedding = Embedding(ConvPatches(c.in_channels, c.dim, c.patch_size), [FourierPosition(c.dim)])
    stages = [
        Stage([build_local_block(c) for _ in range(c.depth)]),
        Stage(
            [
                build_block(c, CLASS_BLOCKS[c.class_norm], ClassAttention(c.dim, c.num_heads), rate=0.0)
                for _ in range(c.class_depth)
            ],
            entry=PrefixTokens(c.dim),
        ),
    ]
    backbone = Backbone(embedding, stages, nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise(model)
    return model


def build_local_block(c: XCiTConfig) -> LocalBlock:
    """Assemble one block on patches; the drop path rate is the same in all."""
    block = build_block(c, Block, CrossCovarianceAttention(c.dim, c.num_heads), c.drop_path)
    return LocalBlock(
        block,
        norm3=nn.LayerNorm(c.dim, eps=1e-6),
        local_mixer=LocalPatchInteraction(c.dim),
        scale3=LayerScale(c.dim, c.layer_scale),
    )


def build_block(c: XCiTConfig, kind: type[Block], token_mixer: nn.Module, rate: float) -> Block:
    """Assemble a block's two outer branches."""
    return kind(
        norm1=nn.LayerNorm(c.dim, eps=1e-6),
        token_mixer=token_mixer,
        norm2=nn.LayerNorm(c.dim, eps=1e-6),
        channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
        drop_path=rate,
        scale1=LayerScale(c.dim, c.layer_scale),
        scale2=LayerScale(c.dim, c.layer_scale),
    )


SIZES = {
    "nano_12": XCiTConfig(dim=128, depth=12, num_heads=4, class_norm="prefix"),
    "tiny_12": XCiTConfig(dim=192, depth=12, num_heads=4),
    "small_12": XCiTConfig(dim=384, depth=12, num_heads=8),
    "tiny_24": XCiTConfig(dim=192, depth=24, num_heads=4, layer_scale=1e-5),
    "small_24": XCiTConfig(dim=384, depth=24, num_heads=8, layer_scale=1e-5),
    "medium_24": XCiTConfig(dim=512, depth=24, num_heads=8, layer_scale=1e-5),
    "large_24": XCiTConfig(dim=768, depth=24, num_heads=16, layer_scale=1e-5),
}

VARIANTS = {
    f"xcit_{size}_p{patch}_{at.size}": replace(config, patch_size=patch, preprocess=at)
    for patch in (16, 8)
    for size, config in SIZES.items()
    for at in (AT_224, AT_384)
}
