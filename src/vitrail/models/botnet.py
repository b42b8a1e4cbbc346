"""BoTNet: a ResNet whose last bottlenecks attend where they convolved.

"Bottleneck Transformers for Visual Recognition", Srinivas et al., 2021, table 1 (BoT50 with S1: stride 1 in the last
stage), and timm's small one:

| model | layers | attention in the last | stem | last stride | positions |
|---|---|---|---|---|---|
| BoT50-S1 | 3, 4, 6, 3 | 0, 0, 0, 3 of each stage | 7 x 7 | 1 | scaled as the keys |
| timm 26t | 2, 2, 2, 2 | 0, 0, 1, 2 | three 3 x 3 | 2 | not scaled |

Four heads. In a bottleneck of stride 2 an average pooling follows attention. A larger map than that of the model's own
image size is refused: its positions have no vectors; a smaller one uses those of its offsets.
"""

from dataclasses import dataclass
from functools import partial

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.embeddings import ConvStem, Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.resnet_stem import plain_stem, tiered_stem
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.bottleneck_attention import BottleneckAttention, RelativeLogits
from vitrail.preprocess import Preprocess

AT_256, AT_224 = Preprocess(256, crop=0.95), Preprocess()
HEADS = 4


@dataclass(frozen=True)
class BoTNetConfig:
    """The numbers of a BoTNet; `attention` counts the last blocks of each stage that attend."""

    depths: tuple[int, ...]
    attention: tuple[int, ...]
    stem: str
    last_stride: int
    scaled_positions: bool
    dim: int = 64
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


STEMS = {"plain": plain_stem, "tiered": tiered_stem}


def build(config: BoTNetConfig) -> Classifier:
    """Assemble a BoTNet from its numbers.

    Raises:
        VitrailError: if `stem` is neither `plain` nor `tiered`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["botnet26t_256"])
        >>> sum(value.numel() for value in model.parameters())
        12488672
    """
    c = config
    if c.stem not in STEMS:
        raise unknown("stem", c.stem, STEMS)
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages, before, side = [], c.dim, -(-c.preprocess.size // 4)
    for i, (depth, attending) in enumerate(zip(c.depths, c.attention, strict=True)):
        stride = 1 if i == 0 else c.last_stride if i == len(c.depths) - 1 else 2
        dim, blocks = 4 * c.dim * 2**i, []
        for j in range(depth):
            mixer = partial(attention, c, side) if j >= depth - attending else None
            kind, step = (AttentionBottleneck, 1) if j else (AttentionEntry, stride)
            blocks.append(kind(dim if j else before, dim, mixer, step, next(rates)))
            side = -(-side // step)
        stages.append(Stage(blocks[1:], blocks[0]))
        before = dim
    pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    embedding = Embedding(ConvStem(STEMS[c.stem](c.in_channels, c.dim), nn.Identity(), pool))
    model = Classifier(Backbone(embedding, stages, nn.Identity()), LinearHead(MeanToken(), before, c.num_classes))
    initialise(model)
    return model


def attention(c: BoTNetConfig, side: int, dim: int) -> BottleneckAttention:
    """Assemble the attention of one bottleneck for a map of so many cells a side."""
    width = dim // HEADS
    scale = width**-0.5 if c.scaled_positions else 1.0
    return BottleneckAttention(dim, HEADS, RelativeLogits(width, (side, side), scale))


VARIANTS = {
    "botnet26t_256": BoTNetConfig((2, 2, 2, 2), (0, 0, 1, 2), "tiered", 2, False, preprocess=AT_256),
    "botnet50_s1": BoTNetConfig((3, 4, 6, 3), (0, 0, 0, 3), "plain", 1, True),
}
