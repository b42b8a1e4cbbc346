"""DiNAT: NAT whose every other block looks further, at neighbours some cells apart.

"Dilated Neighborhood Attention Transformer", Hassani and Shi, 2022:

| model | C | layers | heads | MLP ratio | layer scale | drop path |
|---|---|---|---|---|---|---|
| Mini | 64 | 3, 4, 6, 5 | 2, 4, 8, 16 | 3 | none | 0.2 |
| Tiny | 64 | 3, 4, 18, 5 | 2, 4, 8, 16 | 3 | none | 0.2 |
| Small | 96 | 3, 4, 18, 5 | 3, 6, 12, 24 | 2 | none | 0.3 |
| Base | 128 | 3, 4, 18, 5 | 4, 8, 16, 32 | 2 | 1e-5 | 0.5 |
| Large | 192 | 3, 4, 18, 5 | 6, 12, 24, 48 | 2 | none | 0.35, in ImageNet-22K 0.2 |

Dilations are 8, 4, 2 and 1 by stage, which at 224 pixels makes the dilated neighborhoods span the map; at 384 pixels
they are 13, 6, 3 and 1, or 8, 4, 2 and 1 with a kernel of 11. Small has no layer scale, though NAT's has: so the
authors' code. Names are theirs; `21k` has the classes of ImageNet-22K.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import ConvTokenizer, Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging, NormedConvMerging
from vitrail.parts.regularisation import LayerScale, drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.preprocess import Preprocess

AT_224, AT_384 = Preprocess(crop=0.875), Preprocess(384, crop=1.0)


@dataclass(frozen=True)
class DiNATConfig:
    """The numbers of a DiNAT."""

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratio: float
    drop_path: float
    layer_scale: float | None = None
    kernel_size: int = 7
    dilations: tuple[int, ...] = (8, 4, 2, 1)
    num_classes: int = 1000
    in_channels: int = 3
    norm_eps: float = 1e-5
    preprocess: Preprocess = AT_224


def build(config: DiNATConfig) -> Classifier:
    """Assemble a DiNAT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["dinat_mini"])
        >>> sum(value.numel() for value in model.parameters())
        19984174
    """
    c = config
    dims = [c.dim * 2**i for i in range(len(c.depths))]
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth, num_heads, dilation) in enumerate(zip(dims, c.depths, c.num_heads, c.dilations, strict=True)):
        blocks = [
            build_block(c, dim, num_heads, dilation=dilation if j % 2 else 1, rate=next(rates)) for j in range(depth)
        ]
        stages.append(Stage(blocks, entry=NormedConvMerging(dims[i - 1], dim) if i else NoMerging()))
    backbone = Backbone(Embedding(ConvTokenizer(c.in_channels, c.dim)), stages, nn.LayerNorm(dims[-1], eps=c.norm_eps))
    model = Classifier(backbone, LinearHead(MeanToken(), dims[-1], c.num_classes))
    initialise(model)
    return model


def build_block(c: DiNATConfig, dim: int, num_heads: int, dilation: int, rate: float) -> Block:
    """Assemble one block of one stage."""
    return Block(
        norm1=nn.LayerNorm(dim, eps=c.norm_eps),
        token_mixer=NeighborhoodAttention(dim, num_heads, c.kernel_size, dilation),
        norm2=nn.LayerNorm(dim, eps=c.norm_eps),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
        scale1=None if c.layer_scale is None else LayerScale(dim, c.layer_scale),
        scale2=None if c.layer_scale is None else LayerScale(dim, c.layer_scale),
    )


LARGE = DiNATConfig(192, (3, 4, 18, 5), (6, 12, 24, 48), mlp_ratio=2.0, drop_path=0.35)

VARIANTS = {
    "dinat_mini": DiNATConfig(64, (3, 4, 6, 5), (2, 4, 8, 16), mlp_ratio=3.0, drop_path=0.2),
    "dinat_tiny": DiNATConfig(64, (3, 4, 18, 5), (2, 4, 8, 16), mlp_ratio=3.0, drop_path=0.2),
    "dinat_small": DiNATConfig(96, (3, 4, 18, 5), (3, 6, 12, 24), mlp_ratio=2.0, drop_path=0.3),
    "dinat_base": DiNATConfig(128, (3, 4, 18, 5), (4, 8, 16, 32), mlp_ratio=2.0, drop_path=0.5, layer_scale=1e-5),
    "dinat_large": LARGE,
    "dinat_large_384": replace(LARGE, dilations=(13, 6, 3, 1), preprocess=AT_384),
    "dinat_large_384_11x11": replace(LARGE, kernel_size=11, preprocess=AT_384),
    "dinat_large_21k": replace(LARGE, drop_path=0.2, num_classes=21841),
}
