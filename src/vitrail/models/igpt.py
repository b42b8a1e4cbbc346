"""iGPT: GPT-2 on pixels. One token a pixel, one of 512 colors; the mean over all tokens is classified.

"Generative Pretraining from Pixels", Chen et al., 2020, section 3 and table 1; the released models:

| model | C | layers | heads | pixels |
|---|---|---|---|---|
| S | 512 | 24 | 8 | 32 x 32 |
| M | 1024 | 36 | 8 | 32 x 32 |
| L | 1536 | 48 | 16 | 32 x 32 |

Attention is causal in raster order. Norms divide by the root mean square and have no bias, and the activation is the
sigmoid approximation of GELU. The classifier reads the pixels themselves, as Hugging Face's ImageGPT does; for
generation each token is the pixel before it.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.activations import QuickGELU
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.color_tokens import ColorTokens
from vitrail.parts.embeddings import Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.sequence_norms import RMSNorm
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

EPS = 1e-5
PIXELS_32 = Preprocess(32, crop=1.0, interpolation="bilinear", mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class IGPTConfig:
    """The numbers of an iGPT."""

    dim: int
    depth: int
    num_heads: int
    colors: int = 512
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = PIXELS_32


def build(config: IGPTConfig) -> Classifier:
    """Assemble an iGPT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["imagegpt_small"])
        >>> sum(value.numel() for value in model.parameters())
        76932096
    """
    c = config
    grid = Grid(c.preprocess.size, c.preprocess.size)
    blocks = [
        Block(
            norm1=RMSNorm(c.dim, EPS),
            token_mixer=SelfAttention(c.dim, c.num_heads, attend=CausalAttend()),
            norm2=RMSNorm(c.dim, EPS),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio), QuickGELU()),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    pixels: nn.Module = ColorTokens(c.in_channels, c.dim, c.colors, grid)
    backbone = Backbone(Embedding(pixels, [LearnedPosition(c.dim, grid)]), [Stage(blocks)], RMSNorm(c.dim, EPS))
    model = Classifier(backbone, LinearHead(MeanToken(), c.dim, c.num_classes, bias=False))
    initialise(model)
    return model


VARIANTS = {
    "imagegpt_small": IGPTConfig(dim=512, depth=24, num_heads=8),
    "imagegpt_medium": IGPTConfig(dim=1024, depth=36, num_heads=8),
    "imagegpt_large": IGPTConfig(dim=1536, depth=48, num_heads=16),
}
