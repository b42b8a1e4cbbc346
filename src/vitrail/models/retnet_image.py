"""RetNet on images: a ViT whose tokens are mixed by retention, row by row.

"Retentive Network: A Successor to Transformer for Large Language Models", Sun et al., 2023, in the sizes of ViT-Ti and
ViT-S (the sizes are this library's; the paper has no image model):

| model | layers | C | heads |
|---|---|---|---|
| Ti/16 | 12 | 192 | 3 |
| S/16 | 12 | 384 | 6 |

Values and MLPs are twice as wide as tokens. A cell sees the cells before it in reading order; the rotation of queries
and keys and the decay are the only positions, and the head reads the mean of all cells.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise_as_retnet
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.retention import Retention
from vitrail.preprocess import Preprocess

EPS = 1e-12  # small enough that the norm removes the scales in which the forms differ
AT_224 = Preprocess()


@dataclass(frozen=True)
class ImageRetNetConfig:
    """The numbers of a RetNet on images."""

    dim: int
    num_heads: int
    depth: int = 12
    patch_size: int = 16
    mlp_ratio: float = 2.0
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: ImageRetNetConfig) -> Classifier:
    """Assemble a RetNet on images from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["retnet_tiny_patch16_224"])
        >>> sum(value.numel() for value in model.parameters())
        5665576
    """
    c = config
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=Retention(c.dim, c.num_heads, eps=EPS),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size))
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim))
    model = Classifier(backbone, LinearHead(MeanToken(), c.dim, c.num_classes))
    initialise_as_retnet(model)
    return model


VARIANTS = {
    "retnet_tiny_patch16_224": ImageRetNetConfig(dim=192, num_heads=3),
    "retnet_small_patch16_224": ImageRetNetConfig(dim=384, num_heads=6),
}
