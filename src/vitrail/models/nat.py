"""NAT: each cell attends to the cells around it.

"Neighborhood Attention Transformer", Hassani et al., 2023:

| model | C | layers | heads | MLP ratio | layer scale | drop path |
|---|---|---|---|---|---|---|
| Mini | 64 | 3, 4, 6, 5 | 2, 4, 8, 16 | 3 | none | 0.2 |
| Tiny | 64 | 3, 4, 18, 5 | 2, 4, 8, 16 | 3 | none | 0.2 |
| Small | 96 | 3, 4, 18, 5 | 3, 6, 12, 24 | 2 | 1e-5 | 0.3 |
| Base | 128 | 3, 4, 18, 5 | 4, 8, 16, 32 | 2 | 1e-5 | 0.5 |

Any height and width from 1 up; a map smaller than the kernel is padded as the authors do. Names are theirs.
"""

from dataclasses import dataclass

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

AT_224 = Preprocess(crop=0.875)


@dataclass(frozen=True)
class NATConfig:
    """The numbers of a NAT."""

    dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratio: float
    drop_path: float
    layer_scale: float | None = None
    kernel_size: int = 7
    num_classes: int = 1000
    in_channels: int = 3
    norm_eps: float = 1e-5
    preprocess: Preprocess = AT_224


def build(config: NATConfig) -> Classifier:
    """Assemble a NAT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["nat_mini"])
        >>> sum(value.numel() for value in model.parameters())
        19984174
    """
    c = config
    dims = [c.dim * 2**i for i in range(len(c.depths))]
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth, num_heads) in enumerate(zip(dims, c.depths, c.num_heads, strict=True)):
        blocks = [build_block(c, dim, num_heads, rate=next(rates)) for _ in range(depth)]
        stages.append(Stage(blocks, entry=NormedConvMerging(dims[i - 1], dim) if i else NoMerging()))
    backbone = Backbone(Embedding(ConvTokenizer(c.in_channels, c.dim)), stages, nn.LayerNorm(dims[-1], eps=c.norm_eps))
    model = Classifier(backbone, LinearHead(MeanToken(), dims[-1], c.num_classes))
    initialise(model)
    return model


def build_block(c: NATConfig, dim: int, num_heads: int, rate: float) -> Block:
    """Assemble one block of one stage."""
    return Block(
        norm1=nn.LayerNorm(dim, eps=c.norm_eps),
        token_mixer=NeighborhoodAttention(dim, num_heads, c.kernel_size),
        norm2=nn.LayerNorm(dim, eps=c.norm_eps),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
        scale1=None if c.layer_scale is None else LayerScale(dim, c.layer_scale),
        scale2=None if c.layer_scale is None else LayerScale(dim, c.layer_scale),
    )


VARIANTS = {
    "nat_mini": NATConfig(64, (3, 4, 6, 5), (2, 4, 8, 16), mlp_ratio=3.0, drop_path=0.2),
    "nat_tiny": NATConfig(64, (3, 4, 18, 5), (2, 4, 8, 16), mlp_ratio=3.0, drop_path=0.2),
    "nat_small": NATConfig(96, (3, 4, 18, 5), (3, 6, 12, 24), mlp_ratio=2.0, drop_path=0.3, layer_scale=1e-5),
    "nat_base": NATConfig(128, (3, 4, 18, 5), (4, 8, 16, 32), mlp_ratio=2.0, drop_path=0.5, layer_scale=1e-5),
}
