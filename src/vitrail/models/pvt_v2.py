"""PVT v2: PVT with overlapping patches, and a convolution in place of position tables.

"PVT v2: Improved Baselines with Pyramid Vision Transformer", Wang et al., 2022, table 1, and the authors' code:

| model | C | layers | MLP ratio | drop path |
|---|---|---|---|---|
| B0 | 32, 64, 160, 256 | 2, 2, 2, 2 | 8, 8, 4, 4 | 0.1 |
| B1 | 64, 128, 320, 512 | 2, 2, 2, 2 | 8, 8, 4, 4 | 0.1 |
| B2 | 64, 128, 320, 512 | 3, 4, 6, 3 | 8, 8, 4, 4 | 0.1 |
| B2-Li | 64, 128, 320, 512 | 3, 4, 6, 3 | 8, 8, 4, 4 | 0.1 |
| B3 | 64, 128, 320, 512 | 3, 4, 18, 3 | 8, 8, 4, 4 | 0.3 |
| B4 | 64, 128, 320, 512 | 3, 8, 27, 3 | 8, 8, 4, 4 | 0.3 |
| B5 | 64, 128, 320, 512 | 3, 6, 40, 3 | 4, 4, 4, 4 | 0.3 |

Heads are 1, 2, 5, 8, reductions 8, 4, 2, 1. B2-Li (`linear`) pools the map to 7 x 7 keys in each block and has a ReLU
before the depthwise convolution. No class token; each stage ends with a norm. Any height and width from 1 up. Norms
have epsilon 1e-6; those after patches and reductions have 1e-5 in timm and the authors' code and 1e-6 in Hugging Face:
`reduction_eps`.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.depthwise_mlp import DepthwiseMLP
from vitrail.parts.embeddings import Embedding, NormStep, OverlappingPatchEmbedding, TokenSteps
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import ConvMerging, NoMerging
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.spatial_reduction import ConvReduction, NoReduction, PooledReduction
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.preprocess import Preprocess

AT_224 = Preprocess()


@dataclass(frozen=True)
class PVTv2Config:
    """Hyperparameters of a PVT v2."""

    depths: tuple[int, ...]
    drop_path: float = 0.1
    dims: tuple[int, ...] = (64, 128, 320, 512)
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratios: tuple[float, ...] = (8.0, 8.0, 4.0, 4.0)
    linear: bool = False
    reduction_eps: float = 1e-5
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: PVTv2Config) -> Classifier:
    """Assemble a PVT v2 from its config.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["pvt_v2_b0"])
        >>> sum(value.numel() for value in model.parameters())
        3666760
    """
    c = config
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    numbers = zip(c.depths, c.dims, c.num_heads, c.sr_ratios, c.mlp_ratios, strict=True)
    stages = []
    for i, (depth, dim, num_heads, ratio, mlp_ratio) in enumerate(numbers):
        blocks = [build_block(c, dim, num_heads, ratio, mlp_ratio, next(rates)) for _ in range(depth)]
        entry = TokenSteps([ConvMerging(c.dims[i - 1], dim), NormStep(patch_norm(c, dim))]) if i else NoMerging()
        stages.append(Stage(blocks, entry, exit=NormStep(nn.LayerNorm(dim, eps=1e-6))))
    patches = OverlappingPatchEmbedding(c.in_channels, c.dims[0], patch_size=7, stride=4, padding=3)
    embedding = Embedding(patches, [NormStep(patch_norm(c, c.dims[0]))])
    model = Classifier(Backbone(embedding, stages, nn.Identity()), LinearHead(MeanToken(), c.dims[-1], c.num_classes))
    initialise(model)
    return model


def patch_norm(c: PVTv2Config, dim: int) -> nn.LayerNorm:
    """Return the norm that follows patches."""
    return nn.LayerNorm(dim, eps=c.reduction_eps)


def build_block(c: PVTv2Config, dim: int, num_heads: int, ratio: int, mlp_ratio: float, rate: float) -> Block:
    """Assemble one block of one stage."""
    if c.linear:
        reduction = PooledReduction(dim, c.reduction_eps)
    else:
        reduction = ConvReduction(dim, ratio, c.reduction_eps) if ratio > 1 else NoReduction()
    return Block(
        norm1=nn.LayerNorm(dim, eps=1e-6),
        token_mixer=SpatialReductionAttention(dim, num_heads, reduction),
        norm2=nn.LayerNorm(dim, eps=1e-6),
        channel_mixer=DepthwiseMLP(dim, int(dim * mlp_ratio), before=nn.ReLU() if c.linear else None),
        drop_path=rate,
    )


SMALLEST = (32, 64, 160, 256)

VARIANTS = {
    "pvt_v2_b0": PVTv2Config(depths=(2, 2, 2, 2), dims=SMALLEST),
    "pvt_v2_b1": PVTv2Config(depths=(2, 2, 2, 2)),
    "pvt_v2_b2": PVTv2Config(depths=(3, 4, 6, 3)),
    "pvt_v2_b2_li": PVTv2Config(depths=(3, 4, 6, 3), linear=True),
    "pvt_v2_b3": PVTv2Config(depths=(3, 4, 18, 3), drop_path=0.3),
    "pvt_v2_b4": PVTv2Config(depths=(3, 8, 27, 3), drop_path=0.3),
    "pvt_v2_b5": PVTv2Config(depths=(3, 6, 40, 3), mlp_ratios=(4.0, 4.0, 4.0, 4.0), drop_path=0.3),
}
