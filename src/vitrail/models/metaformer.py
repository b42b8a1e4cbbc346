"""MetaFormer baselines: one architecture, five token mixers, from none at all to attention.

"MetaFormer Baselines for Vision", Yu et al., 2022, tables 1 and 2:

| model | token mixers of the four stages | norm of blocks | head |
|---|---|---|---|
| IdentityFormer | none | all tokens and channels at once | linear |
| RandFormer | none, none, random matrix, random matrix | all tokens and channels at once | linear |
| PoolFormerV2 | pooling | all tokens and channels at once | linear |
| ConvFormer | separable convolution | each token | MLP |
| CAFormer | convolution, convolution, attention, attention | each token | MLP |

| size | C | layers |
|---|---|---|
| S12, S24, S36 | 64, 128, 320, 512 | 2-2-6-2, 4-4-12-4, 6-6-18-6 |
| M36, M48 | 96, 192, 384, 768 | 6-6-18-6, 8-8-24-8 |
| S18, S36 (conv, CA) | 64, 128, 320, 512 | 3-3-9-3, 3-12-18-3 |
| M36, B36 (conv, CA) | 96, 192, 384, 576; 128, 256, 512, 768 | 3-12-18-3 |

Blocks have StarReLU and neither biases nor layer scale; the shortcuts of the last two stages have a learned factor.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.activations import SquaredReLU, StarReLU
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block, ResScaleBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, NormStep, OverlappingPatchEmbedding
from vitrail.parts.heads import LinearHead, MLPHead, NormedMean
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging, PreNormConvMerging
from vitrail.parts.norms import ScaledGroupNorm
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.grid_linformer import GridLinformerAttention
from vitrail.parts.token_mixers.grid_star import GridStarTransformer
from vitrail.parts.token_mixers.identity import IdentityMixing
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.random_mixing import RandomMixing
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.separable_convolution import SeparableConvolution
from vitrail.preprocess import Preprocess

HEAD_DIM, WHOLE = 32, Preprocess(crop=1.0)
layer_norm = partial(nn.LayerNorm, eps=1e-6, bias=False)
BASIC: dict[str, Callable[[int, Grid], nn.Module]] = {
    "identity": lambda dim, grid: IdentityMixing(),
    "random": lambda dim, grid: RandomMixing(grid),
    "pooling": lambda dim, grid: Pooling(),
}
MIXERS: dict[str, Callable[[int, Grid], nn.Module]] = {
    **BASIC,
    "convolution": lambda dim, grid: SeparableConvolution(dim),
    "linformer": lambda dim, grid: GridLinformerAttention(dim, max(dim // HEAD_DIM, 1), grid),
    "star": lambda dim, grid: GridStarTransformer(dim, max(dim // HEAD_DIM, 1)),
    "attention": lambda dim, grid: SelfAttention(dim, max(dim // HEAD_DIM, 1), qkv_bias=False, proj_bias=False),
}


@dataclass(frozen=True)
class MetaFormerConfig:
    """The numbers of a MetaFormer; `token_mixers` names one of `MIXERS` for each stage."""

    token_mixers: tuple[str, ...]
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    drop_path: float = 0.0
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = WHOLE


def build(config: MetaFormerConfig) -> Classifier:
    """Assemble a MetaFormer from its numbers.

    Raises:
        VitrailError: if a token mixer is none of `MIXERS`.
    """
    c = config
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages, side = [], (c.preprocess.size + 1) // 4  # cells per side of a square image after the 7 x 7 stem
    for i, (mixer, dim, depth) in enumerate(zip(c.token_mixers, c.dims, c.depths, strict=True)):
        entry = PreNormConvMerging(layer_norm(c.dims[i - 1]), c.dims[i - 1], dim, 3, padding=1) if i else NoMerging()
        late = i >= 2
        stages.append(
            Stage([build_block(c, mixer, dim, Grid(side, side), late, next(rates)) for _ in range(depth)], entry)
        )
        side = -(-side // 2)
    patches = OverlappingPatchEmbedding(c.in_channels, c.dims[0], patch_size=7, stride=4, padding=2)
    embedding = Embedding(patches, [NormStep(layer_norm(c.dims[0]))])
    pool, dim = NormedMean(c.dims[-1]), c.dims[-1]
    basic = set(c.token_mixers) <= set(BASIC)
    head = LinearHead(pool, dim, c.num_classes) if basic else MLPHead(pool, dim, c.num_classes, SquaredReLU())
    model = Classifier(Backbone(embedding, stages, nn.Identity()), head)
    initialise(model)
    return model


def build_block(c: MetaFormerConfig, mixer: str, dim: int, grid: Grid, late: bool, rate: float) -> Block:
    """Assemble one block of one stage; blocks of late stages scale their shortcut."""
    if mixer not in MIXERS:
        raise unknown("token mixer", mixer, MIXERS)
    norm = partial(ScaledGroupNorm, 1) if set(c.token_mixers) <= set(BASIC) else layer_norm
    parts: dict[str, Any] = dict(
        norm1=norm(dim),
        token_mixer=MIXERS[mixer](dim, grid),
        norm2=norm(dim),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio), StarReLU(), bias=False),
        drop_path=rate,
    )
    return ResScaleBlock(dim, **parts) if late else Block(**parts)


SMALL, MEDIUM, DEEP = (64, 128, 320, 512), (96, 192, 384, 768), (3, 12, 18, 3)
BASIC_SIZES = {
    "s12": MetaFormerConfig((), SMALL, (2, 2, 6, 2), drop_path=0.1),
    "s24": MetaFormerConfig((), SMALL, (4, 4, 12, 4), drop_path=0.1),
    "s36": MetaFormerConfig((), SMALL, (6, 6, 18, 6), drop_path=0.2),
    "m36": MetaFormerConfig((), MEDIUM, (6, 6, 18, 6), drop_path=0.3),
    "m48": MetaFormerConfig((), MEDIUM, (8, 8, 24, 8), drop_path=0.4),
}
SIZES = {
    "s18": MetaFormerConfig((), SMALL, (3, 3, 9, 3), drop_path=0.2),
    "s36": MetaFormerConfig((), SMALL, DEEP, drop_path=0.3),
    "m36": MetaFormerConfig((), (96, 192, 384, 576), DEEP, drop_path=0.4),
    "b36": MetaFormerConfig((), (128, 256, 512, 768), DEEP, drop_path=0.6),
}
MODELS = {
    "caformer": (("convolution", "convolution", "attention", "attention"), SIZES),
    "convformer": (("convolution",) * 4, SIZES),
    "poolformerv2": (("pooling",) * 4, BASIC_SIZES),
    "identityformer": (("identity",) * 4, BASIC_SIZES),
    "randformer": (("identity", "identity", "random", "random"), BASIC_SIZES),
}

VARIANTS = {
    f"{name}_{size}": replace(config, token_mixers=mixers)
    for name, (mixers, sizes) in MODELS.items()
    for size, config in sizes.items()
}
VARIANTS["randformer_m48"] = replace(VARIANTS["randformer_m48"], drop_path=0.3)
