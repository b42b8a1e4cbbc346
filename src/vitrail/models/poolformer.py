"""PoolFormer: the token mixer is an average, and the architecture still works.

"MetaFormer Is Actually What You Need for Vision", Yu et al., 2022, table 1 and the appendix:

| model | C | layers | layer scale | drop path |
|---|---|---|---|---|
| S12 | 64, 128, 320, 512 | 2, 2, 6, 2 | 1e-5 | 0.1 |
| S24 | 64, 128, 320, 512 | 4, 4, 12, 4 | 1e-5 | 0.1 |
| S36 | 64, 128, 320, 512 | 6, 6, 18, 6 | 1e-6 | 0.2 |
| M36 | 96, 192, 384, 768 | 6, 6, 18, 6 | 1e-6 | 0.3 |
| M48 | 96, 192, 384, 768 | 8, 8, 24, 8 | 1e-6 | 0.4 |

The norm looks at all tokens and channels of an image at once (one group), the mean of a neighbourhood leaves the
border's padding out, and no norm follows a merging. Two libraries end differently with the same weights; `pooling`
names the way: `official` (the authors, Hugging Face) normalises with one group and then takes the mean, `timm` takes
the mean and then normalises it alone. Their published accuracies agree to a tenth of a point.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, OverlappingPatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken, NormedMean
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import ConvMerging, NoMerging
from vitrail.parts.norms import TokenGroupNorm
from vitrail.parts.regularisation import LayerScale, drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.preprocess import Preprocess

CROP_90, CROP_95 = Preprocess(), Preprocess(crop=0.95)


@dataclass(frozen=True)
class PoolFormerConfig:
    """The numbers of a PoolFormer."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    layer_scale: float
    drop_path: float
    mlp_ratio: float = 4.0
    pooling: str = "official"
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = CROP_90


def build(config: PoolFormerConfig) -> Classifier:
    """Assemble a PoolFormer from its numbers.

    Raises:
        VitrailError: if `pooling` is neither `official` nor `timm`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["poolformer_s12"])
        >>> sum(value.numel() for value in model.parameters())
        11915176
    """
    c = config
    if c.pooling not in ENDINGS:
        raise unknown("pooling", c.pooling, ENDINGS)
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth) in enumerate(zip(c.dims, c.depths, strict=True)):
        blocks = [build_block(c, dim, rate=next(rates)) for _ in range(depth)]
        stages.append(Stage(blocks, entry=ConvMerging(c.dims[i - 1], dim) if i else NoMerging()))
    embedding = Embedding(OverlappingPatchEmbedding(c.in_channels, c.dims[0], patch_size=7, stride=4, padding=2))
    norm, pool = ENDINGS[c.pooling](c.dims[-1])
    model = Classifier(Backbone(embedding, stages, norm), LinearHead(pool, c.dims[-1], c.num_classes))
    initialise(model)
    return model


def build_block(c: PoolFormerConfig, dim: int, rate: float) -> Block:
    """Assemble one block of one stage."""
    return Block(
        norm1=TokenGroupNorm(1, dim),
        token_mixer=Pooling(),
        norm2=TokenGroupNorm(1, dim),
        channel_mixer=MLP(dim, int(dim * c.mlp_ratio)),
        drop_path=rate,
        scale1=LayerScale(dim, c.layer_scale),
        scale2=LayerScale(dim, c.layer_scale),
    )


ENDINGS = {
    "official": lambda dim: (TokenGroupNorm(1, dim), MeanToken()),
    "timm": lambda dim: (nn.Identity(), NormedMean(dim)),
}

SMALL, MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)

VARIANTS = {
    "poolformer_s12": PoolFormerConfig(SMALL, (2, 2, 6, 2), layer_scale=1e-5, drop_path=0.1),
    "poolformer_s24": PoolFormerConfig(SMALL, (4, 4, 12, 4), layer_scale=1e-5, drop_path=0.1),
    "poolformer_s36": PoolFormerConfig(SMALL, (6, 6, 18, 6), layer_scale=1e-6, drop_path=0.2),
    "poolformer_m36": PoolFormerConfig(MEDIUM, (6, 6, 18, 6), layer_scale=1e-6, drop_path=0.3, preprocess=CROP_95),
    "poolformer_m48": PoolFormerConfig(MEDIUM, (8, 8, 24, 8), layer_scale=1e-6, drop_path=0.4, preprocess=CROP_95),
}
