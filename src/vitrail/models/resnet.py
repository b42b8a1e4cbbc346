"""ResNet: bottlenecks of convolutions with batch normalisation, the baseline of attention in CNNs and of detection.

"Deep Residual Learning for Image Recognition", He et al., 2015, table 1. As in torchvision ("v1.5"), the stride of a
stage is in the 3 x 3 convolution; the paper has it in the first 1 x 1.

| model | layers |
|---|---|
| 50 | 3, 4, 6, 3 |
| 101 | 3, 4, 23, 3 |
| 152 | 3, 8, 36, 3 |
"""

from dataclasses import dataclass

from torch import nn

from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.embeddings import ConvStem, Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.resnet_stem import plain_stem
from vitrail.parts.stages import Stage
from vitrail.preprocess import Preprocess

TORCHVISION = Preprocess(crop=0.875, interpolation="bilinear")


@dataclass(frozen=True)
class ResNetConfig:
    """The numbers of a ResNet."""

    depths: tuple[int, ...]
    dim: int = 64
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = TORCHVISION


def build(config: ResNetConfig) -> Classifier:
    """Assemble a ResNet from its numbers.

    Example:
        >>> import torch
        >>> model = build(ResNetConfig((1, 1), dim=8, num_classes=4)).eval()
        >>> [tuple(level.shape) for level in model.features(torch.zeros(1, 3, 64, 64)).pyramid]
        [(1, 16, 16, 32), (1, 8, 8, 64)]
    """
    rates = iter(drop_path_rates(config.drop_path, sum(config.depths)))
    stages, before = [], config.dim
    for i, depth in enumerate(config.depths):
        dim = 4 * config.dim * 2**i
        entry = AttentionEntry(before, dim, stride=2 if i else 1, drop_path=next(rates))
        blocks = [AttentionBottleneck(dim, dim, drop_path=next(rates)) for _ in range(depth - 1)]
        stages.append(Stage(blocks, entry))
        before = dim
    pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    embedding = Embedding(ConvStem(plain_stem(config.in_channels, config.dim), nn.Identity(), pool))
    model = Classifier(Backbone(embedding, stages, nn.Identity()), LinearHead(MeanToken(), before, config.num_classes))
    initialise(model)
    return model


VARIANTS = {
    "resnet50": ResNetConfig((3, 4, 6, 3)),
    "resnet101": ResNetConfig((3, 4, 23, 3)),
    "resnet152": ResNetConfig((3, 8, 36, 3)),
}
