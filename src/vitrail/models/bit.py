"""BiT: the convolutional baseline that ViT was measured against, a wide ResNet without batch statistics.

"Big Transfer (BiT): General Visual Representation Learning", Kolesnikov et al., 2020:

| model | layers | width |
|---|---|---|
| R50x1, R50x3 | 3, 4, 6, 3 | 64 x 1, 64 x 3 |
| R101x1, R101x3 | 3, 4, 23, 3 | 64 x 1, 64 x 3 |
| R152x2, R152x4 | 3, 8, 36, 3 | 64 x 2, 64 x 4 |

ResNetV2 (activations before convolutions) with group normalisation and standardised weights in place of batch
normalisation. The map is padded by zeros before the first pooling, not by the lowest value, without a ReLU before
it, so the zeros count. Each stage has four times its inner width as channels.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.bottlenecks import GROUPS, PreActivationBottleneck, PreActivationEntry
from vitrail.parts.convolutions import StdConv2d
from vitrail.parts.embeddings import ConvStem, Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.norms import TokenGroupNorm
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

AT_448 = Preprocess(448, crop=1.0, interpolation="bilinear", mean=HALF_MEAN, std=HALF_STD)
AT_480 = replace(AT_448, size=480)


@dataclass(frozen=True)
class BiTConfig:
    """The numbers of a BiT; `dim` is the stem's width, a multiple of 64."""

    depths: tuple[int, ...]
    dim: int
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_448


def build(config: BiTConfig) -> Classifier:
    """Assemble a BiT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["resnetv2_50x1_bit"])
        >>> sum(value.numel() for value in model.parameters())
        25549352
    """
    c = config
    dims = [c.dim, *(4 * c.dim * 2**i for i in range(len(c.depths)))]
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, depth in enumerate(c.depths):
        entry = PreActivationEntry(dims[i], dims[i + 1], stride=2 if i else 1, drop_path=next(rates))
        blocks = [PreActivationBottleneck(dims[i + 1], dims[i + 1], drop_path=next(rates)) for _ in range(depth - 1)]
        stages.append(Stage(blocks, entry))
    pool = nn.Sequential(nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, stride=2))
    embedding = Embedding(ConvStem(StdConv2d(c.in_channels, c.dim, 7, stride=2), nn.Identity(), pool))
    norm = nn.Sequential(TokenGroupNorm(GROUPS, dims[-1]), nn.ReLU())
    model = Classifier(Backbone(embedding, stages, norm), LinearHead(MeanToken(), dims[-1], c.num_classes))
    initialise(model)
    return model


R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)

VARIANTS = {
    "resnetv2_50x1_bit": BiTConfig(R50, dim=64),
    "resnetv2_50x3_bit": BiTConfig(R50, dim=192),
    "resnetv2_101x1_bit": BiTConfig(R101, dim=64),
    "resnetv2_101x3_bit": BiTConfig(R101, dim=192),
    "resnetv2_152x2_bit": BiTConfig(R152, dim=128),
    "resnetv2_152x4_bit": BiTConfig(R152, dim=256, preprocess=AT_480),
}
