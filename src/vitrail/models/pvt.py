"""PVT: a pyramid of maps, and attention with fewer keys than queries.

"Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions", Wang et al., 2021,
table 1, and the authors' code:

| model | C | layers | heads | reduction | MLP ratio | drop path |
|---|---|---|---|---|---|---|
| Tiny | 64, 128, 320, 512 | 2, 2, 2, 2 | 1, 2, 5, 8 | 8, 4, 2, 1 | 8, 8, 4, 4 | 0.1 |
| Small | 64, 128, 320, 512 | 3, 4, 6, 3 | 1, 2, 5, 8 | 8, 4, 2, 1 | 8, 8, 4, 4 | 0.1 |
| Medium | 64, 128, 320, 512 | 3, 4, 18, 3 | 1, 2, 5, 8 | 8, 4, 2, 1 | 8, 8, 4, 4 | 0.3 |
| Large | 64, 128, 320, 512 | 3, 8, 27, 3 | 1, 2, 5, 8 | 8, 4, 2, 1 | 8, 8, 4, 4 | 0.3 |

The class token enters in the last stage. Each stage has a position table of its own, resized bilinearly. Any height and
width from 1 up: images and maps that are no multiple of a patch are padded with zeros at the right and bottom, where
the authors drop the rest. Norms have epsilon 1e-6; those after patches and reductions have 1e-5 in the authors' code
and 1e-6 in Hugging Face: `reduction_eps`.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, MapPatches, PatchEmbedding, PrefixTokens, TokenSteps
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging
from vitrail.parts.positions import BilinearPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.spatial_reduction import ConvReduction, NoReduction
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.preprocess import Preprocess

AT_224 = Preprocess(crop=0.875)


@dataclass(frozen=True)
class PVTConfig:
    """Hyperparameters of a PVT."""

    depths: tuple[int, ...]
    drop_path: float = 0.1
    dims: tuple[int, ...] = (64, 128, 320, 512)
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratios: tuple[float, ...] = (8.0, 8.0, 4.0, 4.0)
    reduction_eps: float = 1e-5
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: PVTConfig) -> Classifier:
    """Assemble a PVT from its config.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["pvt_tiny"])
        >>> sum(value.numel() for value in model.parameters())
        13229288
    """
    c = config
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    numbers = zip(c.depths, c.dims, c.num_heads, c.sr_ratios, c.mlp_ratios, strict=True)
    stages = []
    for i, (depth, dim, num_heads, ratio, mlp_ratio) in enumerate(numbers):
        blocks = [build_block(c, dim, num_heads, ratio, mlp_ratio, next(rates)) for _ in range(depth)]
        stages.append(Stage(blocks, entry=build_entry(c, i) if i else NoMerging()))
    patches = PatchEmbedding(c.in_channels, c.dims[0], patch_size=4, norm=nn.LayerNorm(c.dims[0], eps=c.reduction_eps))
    embedding = Embedding(patches, [BilinearPosition(c.dims[0], grid_of(c, stage=0))])
    backbone = Backbone(embedding, stages, nn.LayerNorm(c.dims[-1], eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dims[-1], c.num_classes))
    initialise(model)
    return model


def grid_of(c: PVTConfig, stage: int) -> Grid:
    """Return the grid of a stage at the config's image size."""
    side = -(-c.preprocess.size // (4 * 2**stage))
    return Grid(side, side, prefix=int(stage == len(c.dims) - 1 > 0))


def build_entry(c: PVTConfig, stage: int) -> TokenSteps:
    """Assemble the entry of a stage: patches of the map, the class token in the last stage, positions."""
    dim, grid = c.dims[stage], grid_of(c, stage)
    patches = MapPatches(c.dims[stage - 1], dim, patch_size=2, norm=nn.LayerNorm(dim, eps=c.reduction_eps))
    return TokenSteps([patches, PrefixTokens(dim) if grid.prefix else NoMerging(), BilinearPosition(dim, grid)])


def build_block(c: PVTConfig, dim: int, num_heads: int, ratio: int, mlp_ratio: float, rate: float) -> Block:
    """Assemble one block of one stage."""
    reduction = ConvReduction(dim, ratio, c.reduction_eps) if ratio > 1 else NoReduction()
    return Block(
        norm1=nn.LayerNorm(dim, eps=1e-6),
        token_mixer=SpatialReductionAttention(dim, num_heads, reduction),
        norm2=nn.LayerNorm(dim, eps=1e-6),
        channel_mixer=MLP(dim, int(dim * mlp_ratio)),
        drop_path=rate,
    )


VARIANTS = {
    "pvt_tiny": PVTConfig(depths=(2, 2, 2, 2)),
    "pvt_small": PVTConfig(depths=(3, 4, 6, 3)),
    "pvt_medium": PVTConfig(depths=(3, 4, 18, 3), drop_path=0.3),
    "pvt_large": PVTConfig(depths=(3, 8, 27, 3), drop_path=0.3),
}
