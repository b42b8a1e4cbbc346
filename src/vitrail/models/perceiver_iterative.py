"""The original Perceiver: 512 latents read all pixels eight times, with a Transformer of six blocks after each reading.

"Perceiver: General Perception with Iterative Attention", Jaegle et al., 2021, section 4.1, table 1 (ImageNet, Fourier
features):

| latents | channels | readings | blocks after each | heads of a reading, of a block | bands |
|---|---|---|---|---|---|
| 512 | 1024 | 8 | 6 | 1, 8 | 64 |

The second to eighth reading share their weights, the first has its own; all Transformers share theirs. The head reads
the mean of the latents. Perceiver IO reads once and has a query for the output.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.backbone import Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.input_arrays import FourierPixels
from vitrail.parts.latents import CrossLayer, IterativeBackbone, LatentEmbedding, RereadingStage
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

AT_224 = Preprocess(224, crop=224 / 256)


@dataclass(frozen=True)
class IterativePerceiverConfig:
    """The numbers of a Perceiver; `depth` blocks follow each of `reads` readings."""

    latents: int = 512
    dim: int = 1024
    depth: int = 6
    reads: int = 8
    num_heads: int = 8
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: IterativePerceiverConfig) -> Classifier:
    """Assemble a Perceiver from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["perceiver_fourier"])
        >>> sum(value.numel() for value in model.parameters())
        44912254
    """
    c = config
    inputs = FourierPixels(c.in_channels)
    first, again = (CrossLayer(c.dim, inputs.dim, inputs.dim) for _ in range(2))
    blocks: list[nn.Module] = [
        Block(nn.LayerNorm(c.dim), SelfAttention(c.dim, c.num_heads), nn.LayerNorm(c.dim), MLP(c.dim, c.dim), rate)
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    embedding = LatentEmbedding(inputs, first, c.latents, c.dim)
    backbone = IterativeBackbone(embedding, RereadingStage(blocks, again, c.reads), nn.Identity())
    model = Classifier(backbone, LinearHead(MeanToken(), c.dim, c.num_classes))
    initialise(model)
    return model


VARIANTS = {"perceiver_fourier": IterativePerceiverConfig()}
