"""DiNAT_s: Swin with neighborhoods in the place of windows.

"Dilated Neighborhood Attention Transformer", Hassani and Shi, 2022, its alternative model:

| model | C | layers | heads | drop path |
|---|---|---|---|---|
| Tiny | 96 | 2, 2, 6, 2 | 3, 6, 12, 24 | 0.2 |
| Small | 96 | 2, 2, 18, 2 | 3, 6, 12, 24 | 0.3 |
| Base | 128 | 2, 2, 18, 2 | 4, 8, 16, 32 | 0.5 |
| Large | 192 | 2, 2, 18, 2 | 6, 12, 24, 48 | 0.35, in ImageNet-22K 0.2 |

Where Swin shifts its windows, the neighborhood is dilated: by 8, 4, 2 and 1 cells by stage, at 384 pixels by 13, 6, 3
and 1. Names are the authors'; `21k` has the classes of ImageNet-22K.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging, PatchMerging
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.preprocess import Preprocess

AT_224, AT_384 = Preprocess(crop=0.875), Preprocess(384, crop=1.0)


@dataclass(frozen=True)
class DiNATsConfig:
    """The numbers of a DiNAT_s."""

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    drop_path: float
    dilations: tuple[int, ...] = (8, 4, 2, 1)
    kernel_size: int = 7
    patch_size: int = 4
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: DiNATsConfig) -> Classifier:
    """Assemble a DiNAT_s from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["dinat_s_tiny"])
        >>> sum(value.numel() for value in model.parameters())
        28288354
    """
    c = config
    dims = [c.dim * 2**i for i in range(len(c.depths))]
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth, num_heads, dilation) in enumerate(zip(dims, c.depths, c.num_heads, c.dilations, strict=True)):
        blocks = [
            build_block(c, dim, num_heads, dilation=dilation if j % 2 else 1, rate=next(rates)) for j in range(depth)
        ]
        stages.append(Stage(blocks, entry=PatchMerging(dims[i - 1], dim) if i else NoMerging()))
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size, norm=nn.LayerNorm(c.dim)))
    backbone = Backbone(embedding, stages, nn.LayerNorm(dims[-1]))
    model = Classifier(backbone, LinearHead(MeanToken(), dims[-1], c.num_classes))
    initialise(model)
    return model


def build_block(c: DiNATsConfig, dim: int, num_heads: int, dilation: int, rate: float) -> Block:
    """Assemble one block of one stage."""
    return Block(
        norm1=nn.LayerNorm(dim),
        token_mixer=NeighborhoodAttention(dim, num_heads, c.kernel_size, dilation),
        norm2=nn.LayerNorm(dim),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
    )


LARGE = DiNATsConfig(192, (2, 2, 18, 2), (6, 12, 24, 48), drop_path=0.35)

VARIANTS = {
    "dinat_s_tiny": DiNATsConfig(96, (2, 2, 6, 2), (3, 6, 12, 24), drop_path=0.2),
    "dinat_s_small": DiNATsConfig(96, (2, 2, 18, 2), (3, 6, 12, 24), drop_path=0.3),
    "dinat_s_base": DiNATsConfig(128, (2, 2, 18, 2), (4, 8, 16, 32), drop_path=0.5),
    "dinat_s_large": LARGE,
    "dinat_s_large_384": replace(LARGE, dilations=(13, 6, 3, 1), preprocess=AT_384),
    "dinat_s_large_21k": replace(LARGE, drop_path=0.2, num_classes=21841),
}
