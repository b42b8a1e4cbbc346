"""Perceiver IO image classifiers: 512 latents read all pixels once, and think; a query reads the latents.

"Perceiver: General Perception with Iterative Attention", Jaegle et al., 2021, and "Perceiver IO: A General
Architecture for Structured Inputs & Outputs", Jaegle et al., 2022, section 4.5. All have 512 latents of 1024 channels,
and 6 blocks of 8 heads that run 8 times with the same weights:

| model | input array |
|---|---|
| learned | 224 x 224 pixels (1 x 1 convolution, 256) and learned positions (256) |
| fourier | 224 x 224 pixels (3) and Fourier features (258) |
| conv | 55 x 55 places after convolution and pooling (64) and Fourier features (258) |

MLPs are as wide as the latents. The features are the latents, in one row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise
from vitrail.parts.input_arrays import FourierConvolution, FourierPixels, LearnedPixels
from vitrail.parts.latents import CrossLayer, LatentEmbedding, QueryHead, RepeatedStage
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

AT_224 = Preprocess(224, crop=224 / 256)


@dataclass(frozen=True)
class PerceiverConfig:
    """The numbers of a Perceiver IO; `inputs` is one of `INPUTS`, and `depth` blocks run `repeats` times."""

    inputs: str
    latents: int = 512
    dim: int = 1024
    depth: int = 6
    repeats: int = 8
    num_heads: int = 8
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


INPUTS: dict[str, Callable[[PerceiverConfig], Any]] = {
    "learned": lambda c: LearnedPixels(c.in_channels, Grid(c.preprocess.size, c.preprocess.size)),
    "fourier": lambda c: FourierPixels(c.in_channels),
    "conv": lambda c: FourierConvolution(c.in_channels),
}


def build(config: PerceiverConfig) -> Classifier:
    """Assemble a Perceiver IO from its numbers.

    Raises:
        VitrailError: if `inputs` is none of `INPUTS`.
    """
    c = config
    if c.inputs not in INPUTS:
        raise unknown("inputs", c.inputs, INPUTS)
    inputs = INPUTS[c.inputs](c)
    embedding = LatentEmbedding(inputs, CrossLayer(c.dim, inputs.dim, inputs.dim), c.latents, c.dim)
    blocks: list[nn.Module] = [
        Block(nn.LayerNorm(c.dim), SelfAttention(c.dim, c.num_heads), nn.LayerNorm(c.dim), MLP(c.dim, c.dim), rate)
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    backbone = Backbone(embedding, [RepeatedStage(blocks, c.repeats)], nn.Identity())
    model = Classifier(backbone, QueryHead(c.dim, c.num_classes))
    initialise(model)
    return model


VARIANTS = {f"perceiver_io_{inputs}": PerceiverConfig(inputs) for inputs in INPUTS}
