"""Stand-alone self-attention: ResNet-50 in which every 3 x 3 convolution attends to its 7 x 7 neighborhood.

"Stand-Alone Self-Attention in Vision Models", Ramachandran et al., 2019, table 1, "Conv-stem + Attention" and "Full
Attention" (`_full`):

| model | layers | neighborhood | heads |
|---|---|---|---|
| ResNet-26 | 1, 2, 4, 1 | 7 x 7 | 8 |
| ResNet-38 | 2, 3, 5, 2 | 7 x 7 | 8 |
| ResNet-50 | 3, 4, 6, 3 | 7 x 7 | 8 |

The stem convolves, or attends within 4 x 4 blocks of pixels with values that depend on the place in the block, then
pools 4 x 4. In the first bottleneck of a stage a 2 x 2 average pooling follows the attention.
"""

from dataclasses import dataclass
from functools import partial

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry
from vitrail.parts.attention_stem import SpatiallyAwareAttention
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.embeddings import ConvStem, Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.resnet_stem import plain_stem
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.halo_attention import StandAloneAttention
from vitrail.preprocess import Preprocess

HEADS, NEIGHBORHOOD = 8, 7
AT_224 = Preprocess()


@dataclass(frozen=True)
class SASAConfig:
    """The numbers of a ResNet with stand-alone self-attention."""

    depths: tuple[int, ...]
    stem: str = "conv"
    dim: int = 64
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: SASAConfig) -> Classifier:
    """Assemble the network from its numbers.

    Raises:
        VitrailError: if `stem` is neither `conv` nor `attention`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["sasa_resnet26"])
        >>> sum(value.numel() for value in model.parameters())
        10342632
    """
    c = config
    if c.stem not in STEMS:
        raise unknown("stem", c.stem, STEMS)
    mixer = partial(StandAloneAttention, num_heads=HEADS, kernel=NEIGHBORHOOD)
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages, before = [], c.dim
    for i, depth in enumerate(c.depths):
        dim = 4 * c.dim * 2**i
        entry = AttentionEntry(before, dim, mixer, stride=2 if i else 1, drop_path=next(rates))
        blocks = [AttentionBottleneck(dim, dim, mixer, drop_path=next(rates)) for _ in range(depth - 1)]
        stages.append(Stage(blocks, entry))
        before = dim
    model = Classifier(
        Backbone(Embedding(STEMS[c.stem](c)), stages, nn.Identity()), LinearHead(MeanToken(), before, c.num_classes)
    )
    initialise(model)
    return model


def _conv_stem(c: SASAConfig) -> ConvStem:
    pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return ConvStem(plain_stem(c.in_channels, c.dim), nn.Identity(), pool)


def _attention_stem(c: SASAConfig) -> ConvStem:
    return ConvStem(SpatiallyAwareAttention(c.in_channels, c.dim), nn.BatchNorm2d(c.dim), nn.MaxPool2d(4))


STEMS = {"conv": _conv_stem, "attention": _attention_stem}
VARIANTS = {
    "sasa_resnet26": SASAConfig((1, 2, 4, 1)),
    "sasa_resnet38": SASAConfig((2, 3, 5, 2)),
    "sasa_resnet50": SASAConfig((3, 4, 6, 3)),
    "sasa_resnet26_full": SASAConfig((1, 2, 4, 1), "attention"),
    "sasa_resnet38_full": SASAConfig((2, 3, 5, 2), "attention"),
    "sasa_resnet50_full": SASAConfig((3, 4, 6, 3), "attention"),
}
