"""NesT: attention within blocks, and convolutions between levels that let them exchange information.

"Nested Hierarchical Transformer: Towards Accurate, Data-Efficient and Interpretable Visual Understanding" (first
"Aggregating Nested Transformers"), Zhang et al., 2022, table A1 and the authors' code, which the weights are of:

| model | C | layers | heads | blocks | drop path |
|---|---|---|---|---|---|
| T | 96, 192, 384 | 2, 2, 8 | 3, 6, 12 | 4 x 4, 2 x 2, 1 | 0.2 |
| S | 96, 192, 384 | 2, 2, 20 | 3, 6, 12 | 4 x 4, 2 x 2, 1 | 0.3 |
| B | 128, 256, 512 | 2, 2, 20 | 4, 8, 16 | 4 x 4, 2 x 2, 1 | 0.5 |

The number of blocks is fixed, so their size follows the image: 14 x 14 tokens at 224 pixels, and the last level attends
to the whole map. Each level has its own position table. Any height and width from 1 up: a map that blocks do not
divide is padded, and no token attends to padding (timm takes squares alone). The published weights (`nest_*_jx`) pool
as JAX does, with the odd zero at the end; `nest_*` is timm's model with symmetric padding, without weights: `padding`.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.conv_pool_merging import ConvPoolMerging
from vitrail.parts.convolutions import SameMaxPool2d
from vitrail.parts.embeddings import Embedding, PatchEmbedding, TokenSteps
from vitrail.parts.even_blocks import EvenBlocks
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging
from vitrail.parts.positions import LearnedPosition, NoPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.preprocess import Preprocess

AT_224 = Preprocess(crop=0.875)

POOLS = {
    "symmetric": lambda: nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    "same": lambda: SameMaxPool2d(kernel_size=3, stride=2),
}


@dataclass(frozen=True)
class NesTConfig:
    """Hyperparameters of a NesT."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    drop_path: float
    padding: str = "symmetric"
    patch_size: int = 4
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: NesTConfig) -> Classifier:
    """Assemble a NesT from its config.

    Raises:
        VitrailError: if `padding` is neither `symmetric` nor `same`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["nest_tiny_jx"])
        >>> sum(value.numel() for value in model.parameters())
        17057608
    """
    c = config
    if c.padding not in POOLS:
        raise unknown("padding", c.padding, POOLS)
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth, num_heads) in enumerate(zip(c.dims, c.depths, c.num_heads, strict=True)):
        blocks = [build_block(c, dim, num_heads, 2 ** (len(c.dims) - 1 - i), next(rates)) for _ in range(depth)]
        side = -(-c.preprocess.size // (c.patch_size * 2**i))
        merging = ConvPoolMerging(c.dims[i - 1], dim, POOLS[c.padding]()) if i else NoMerging()
        stages.append(Stage(blocks, entry=TokenSteps([merging, LearnedPosition(dim, Grid(side, side))])))
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dims[0], c.patch_size))
    backbone = Backbone(embedding, stages, nn.LayerNorm(c.dims[-1], eps=1e-6))
    model = Classifier(backbone, LinearHead(MeanToken(), c.dims[-1], c.num_classes))
    initialise(model)
    return model


def build_block(c: NesTConfig, dim: int, num_heads: int, blocks: int, rate: float) -> Block:
    """Assemble one layer of a level whose map is cut into `blocks x blocks` blocks."""
    return Block(
        norm1=nn.LayerNorm(dim, eps=1e-6),
        token_mixer=WindowAttention(dim, num_heads, window_size=blocks, cut=EvenBlocks, position=NoPosition()),
        norm2=nn.LayerNorm(dim, eps=1e-6),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
    )


TINY = NesTConfig((96, 192, 384), (2, 2, 8), (3, 6, 12), drop_path=0.2)
SMALL = NesTConfig((96, 192, 384), (2, 2, 20), (3, 6, 12), drop_path=0.3)
BASE = NesTConfig((128, 256, 512), (2, 2, 20), (4, 8, 16), drop_path=0.5)

VARIANTS = {
    "nest_tiny_jx": replace(TINY, padding="same"),
    "nest_small_jx": replace(SMALL, padding="same"),
    "nest_base_jx": replace(BASE, padding="same"),
    "nest_tiny": TINY,
    "nest_small": SMALL,
    "nest_base": BASE,
}
