"""ViT hybrids: a ResNet sees first, and ViT's patches are cut from its map.

"An Image is Worth 16x16 Words", Dosovitskiy et al., 2021, section 3.1 (R50+B), and "How to train your ViT?", Steiner et
al., 2022 (the others):

| model | ResNet layers | patches of the map | ViT |
|---|---|---|---|
| R+Ti | the stem alone | 8 x 8 | Ti |
| R26+S | 2, 2, 2, 2 | 1 x 1 | S |
| R50+B | 3, 4, 9 | 1 x 1 | B |
| R50+L | 3, 4, 6, 3 | 1 x 1 | L |

The ResNet is not BiT's: activations stand after convolutions, every convolution and pooling pads as TensorFlow does,
and R50+B moves the blocks of the fourth stage into the third. Its stages are stages of the backbone, so the pyramid
holds their maps; the last stage is the ViT, which enters by cutting patches and adding class token and positions.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.bottlenecks import GROUPS, PostActivationBottleneck, PostActivationEntry
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.convolutions import SameMaxPool2d, SameStdConv2d
from vitrail.parts.embeddings import ConvStem, Embedding, MapPatches, PrefixTokens, TokenSteps
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise_as_vit
from vitrail.parts.norms import GroupNormReLU
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

STEM = 64
AT_224, AT_384 = Preprocess(mean=HALF_MEAN, std=HALF_STD), Preprocess(384, crop=1.0, mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class ViTHybridConfig:
    """The numbers of a hybrid: `depths` are the ResNet's, `depth` is the ViT's."""

    depths: tuple[int, ...]
    patch_size: int
    dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: ViTHybridConfig) -> Classifier:
    """Assemble a hybrid from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["vit_tiny_r_s16_p8_224"])
        >>> sum(value.numel() for value in model.parameters())
        6337704
    """
    c = config
    stem = ConvStem(SameStdConv2d(c.in_channels, STEM, 7, stride=2), GroupNormReLU(GROUPS, STEM), SameMaxPool2d(3, 2))
    backbone = Backbone(Embedding(stem), [*resnet_stages(c), vit_stage(c)], nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise_as_vit(model)
    return model


def widths(c: ViTHybridConfig) -> list[int]:
    """Channels after the stem and after each stage of the ResNet."""
    return [STEM, *(4 * STEM * 2**i for i in range(len(c.depths)))]


def resnet_stages(c: ViTHybridConfig) -> list[Stage]:
    """Assemble the stages that see first."""
    dims = widths(c)
    stages = []
    for i, depth in enumerate(c.depths):
        entry = PostActivationEntry(dims[i], dims[i + 1], stride=2 if i else 1)
        stages.append(Stage([PostActivationBottleneck(dims[i + 1], dims[i + 1]) for _ in range(depth - 1)], entry))
    return stages


def vit_stage(c: ViTHybridConfig) -> Stage:
    """Assemble the Transformer on the patches of the last map."""
    pixels = 4 * 2 ** max(len(c.depths) - 1, 0) * c.patch_size  # side of a token's patch in the image
    side = -(-c.preprocess.size // pixels)
    steps = [
        MapPatches(widths(c)[-1], c.dim, c.patch_size),
        PrefixTokens(c.dim),
        LearnedPosition(c.dim, Grid(side, side, prefix=1)),
    ]
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
    return Stage(blocks, entry=TokenSteps(steps))


R_TI = ViTHybridConfig(depths=(), patch_size=8, dim=192, depth=12, num_heads=3)
R26_S = ViTHybridConfig(depths=(2, 2, 2, 2), patch_size=1, dim=384, depth=12, num_heads=6)
R50_B = ViTHybridConfig(depths=(3, 4, 9), patch_size=1, dim=768, depth=12, num_heads=12)
R50_L = ViTHybridConfig(depths=(3, 4, 6, 3), patch_size=1, dim=1024, depth=24, num_heads=16)

VARIANTS = {
    "vit_tiny_r_s16_p8_224": R_TI,
    "vit_tiny_r_s16_p8_384": replace(R_TI, preprocess=AT_384),
    "vit_small_r26_s32_224": R26_S,
    "vit_small_r26_s32_384": replace(R26_S, preprocess=AT_384),
    "vit_base_r50_s16_224": R50_B,
    "vit_base_r50_s16_384": replace(R50_B, preprocess=AT_384),
    "vit_large_r50_s32_224": R50_L,
    "vit_large_r50_s32_384": replace(R50_L, preprocess=AT_384),
}
