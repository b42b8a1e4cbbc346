"""HaloNet: a ResNet in which blocks of cells attend to themselves and a halo of neighbours, where they convolved.

"Scaling Local Self-Attention for Parameter Efficient Visual Backbones", Vaswani et al., 2021, in timm's hybrids of
convolutions and attention (the paper's own H0 to H7 have no released weights):

| model | layers | attending layers of each stage | heads | halo | activation |
|---|---|---|---|---|---|
| 26t | 2, 2, 2, 2 | -, -, 1, 0-1 | 8 | 2 | ReLU |
| 50ts | 3, 4, 6, 3 | -, 3, 1 3 5, 1 | 4 in the second stage, 8 | 3 | SiLU |

Blocks of 8 x 8 cells. In the first bottleneck of a stage every second row and column has a query.
"""

from dataclasses import dataclass
from functools import partial

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry, StridedAttentionEntry
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.embeddings import ConvStem, Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.resnet_stem import tiered_stem
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.halo_attention import HaloAttention
from vitrail.preprocess import Preprocess

BLOCK = 8
CROP_94, CROP_95 = Preprocess(256, crop=0.94), Preprocess(256, crop=0.95)
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


@dataclass(frozen=True)
class HaloNetConfig:
    """The numbers of a HaloNet; `attention` lists the layers of each stage that attend."""

    depths: tuple[int, ...]
    attention: tuple[tuple[int, ...], ...]
    num_heads: tuple[int, ...]
    halo: int
    act: str
    dim: int = 64
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = CROP_94


def build(config: HaloNetConfig) -> Classifier:
    """Assemble a HaloNet from its numbers.

    Raises:
        VitrailError: if `act` is neither `relu` nor `silu`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["halonet26t"])
        >>> sum(value.numel() for value in model.parameters())
        12480288
    """
    c = config
    if c.act not in ACTIVATIONS:
        raise unknown("activation", c.act, ACTIVATIONS)
    act = ACTIVATIONS[c.act]()
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages, before = [], c.dim
    for i, (depth, attending, heads) in enumerate(zip(c.depths, c.attention, c.num_heads, strict=True)):
        stride, dim, blocks = 2 if i else 1, 4 * c.dim * 2**i, []
        for j in range(depth):
            step = 1 if j else stride
            mixer = partial(HaloAttention, num_heads=heads, block=BLOCK, halo=c.halo, stride=step)
            kind = AttentionBottleneck if j else StridedAttentionEntry if j in attending else AttentionEntry
            chosen = mixer if j in attending else None
            blocks.append(kind(dim if j else before, dim, chosen, step, next(rates), act))
        stages.append(Stage(blocks[1:], blocks[0]))
        before = dim
    pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    embedding = Embedding(ConvStem(tiered_stem(c.in_channels, c.dim, act), nn.Identity(), pool))
    model = Classifier(Backbone(embedding, stages, nn.Identity()), LinearHead(MeanToken(), before, c.num_classes))
    initialise(model)
    return model


VARIANTS = {
    "halonet26t": HaloNetConfig((2, 2, 2, 2), ((), (), (1,), (0, 1)), (8, 8, 8, 8), 2, "relu", preprocess=CROP_95),
    "halonet50ts": HaloNetConfig((3, 4, 6, 3), ((), (3,), (1, 3, 5), (1,)), (8, 4, 8, 8), 3, "silu"),
}
