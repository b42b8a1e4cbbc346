"""MLP-Mixer: linear layers over places and over channels, in turn.

"MLP-Mixer: An all-MLP Architecture for Vision", Tolstikhin et al., 2021, table 1:

| model | layers | C | channel MLP | token MLP | patches |
|---|---|---|---|---|---|
| S | 8 | 512 | 2048 | 256 | 32, 16 |
| B | 12 | 768 | 3072 | 384 | 32, 16 |
| L | 24 | 1024 | 4096 | 512 | 32, 16 |

The resolution is part of the weights: `image_size` builds a model for another one, which then has to be trained. No
position is added, because the token MLP knows each place by its weights.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise_as_mixer
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

AT_224 = Preprocess(crop=0.875, mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class MixerConfig:
    """The numbers of a Mixer; `token_ratio` and `mlp_ratio` are widths as multiples of `dim`."""

    patch_size: int
    dim: int
    depth: int
    token_ratio: float = 0.5
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: MixerConfig) -> Classifier:
    """Assemble a Mixer from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["mixer_s32_224"])
        >>> sum(value.numel() for value in model.parameters())
        19104624
    """
    c = config
    side = -(-c.preprocess.size // c.patch_size)
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=TokenMLP(Grid(side, side), int(c.dim * c.token_ratio)),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size))
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(MeanToken(), c.dim, c.num_classes))
    initialise_as_mixer(model)
    return model


SMALL = MixerConfig(patch_size=16, dim=512, depth=8)
BASE = MixerConfig(patch_size=16, dim=768, depth=12)
LARGE = MixerConfig(patch_size=16, dim=1024, depth=24)

VARIANTS = {
    "mixer_s32_224": replace(SMALL, patch_size=32),
    "mixer_s16_224": SMALL,
    "mixer_b32_224": replace(BASE, patch_size=32),
    "mixer_b16_224": BASE,
    "mixer_l32_224": replace(LARGE, patch_size=32),
    "mixer_l16_224": LARGE,
}
