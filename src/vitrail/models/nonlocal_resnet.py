"""Non-local networks: a ResNet-50 in which some bottlenecks are followed by attention over the whole map.

"Non-local Neural Networks", Wang et al., 2018, sections 3.3 and 4.1, on images (its 2D form, as in section 6):

| model | blocks | after the bottlenecks |
|---|---|---|
| 1 block | 1 | the last but one of the third stage |
| 5 blocks | 2 and 3 | every other of the second and third stage |

Three pairwise functions: embedded Gaussian (softmax attention), dot product and concatenation. Keys are the 2 x 2
maxima of the map.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.embeddings import ConvStem, Embedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.non_local import NonLocalAttention, NonLocalBottleneck, NonLocalConcatenation, NonLocalDotProduct
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.resnet_stem import plain_stem
from vitrail.parts.stages import Stage
from vitrail.preprocess import Preprocess

AT_224 = Preprocess()
PAIRS = {"gaussian": NonLocalAttention, "dot": NonLocalDotProduct, "concatenation": NonLocalConcatenation}


@dataclass(frozen=True)
class NonLocalConfig:
    """The numbers of a non-local ResNet; `blocks` lists the layers of each stage (from 1) that a block follows."""

    blocks: tuple[tuple[int, ...], ...]
    pairs: str
    depths: tuple[int, ...] = (3, 4, 6, 3)
    dim: int = 64
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: NonLocalConfig) -> Classifier:
    """Assemble a non-local ResNet from its numbers.

    Raises:
        VitrailError: if `pairs` is none of `PAIRS`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["nonlocal1_resnet50"])
        >>> sum(value.numel() for value in model.parameters())
        27658792
    """
    c = config
    if c.pairs not in PAIRS:
        raise unknown("pairwise function", c.pairs, PAIRS)
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages, before = [], c.dim
    for i, (depth, attending) in enumerate(zip(c.depths, c.blocks, strict=True)):
        dim = 4 * c.dim * 2**i
        entry = AttentionEntry(before, dim, stride=2 if i else 1, drop_path=next(rates))
        blocks = [
            NonLocalBottleneck(dim, PAIRS[c.pairs](dim), next(rates))
            if j in attending
            else AttentionBottleneck(dim, dim, drop_path=next(rates))
            for j in range(1, depth)
        ]
        stages.append(Stage(blocks, entry))
        before = dim
    pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    embedding = Embedding(ConvStem(plain_stem(c.in_channels, c.dim), nn.Identity(), pool))
    model = Classifier(Backbone(embedding, stages, nn.Identity()), LinearHead(MeanToken(), before, c.num_classes))
    initialise(model)
    return model


ONE, FIVE = ((), (), (4,), ()), ((), (1, 3), (1, 3, 5), ())
VARIANTS = {
    "nonlocal1_resnet50": NonLocalConfig(ONE, "gaussian"),
    "nonlocal1_resnet50_dot": NonLocalConfig(ONE, "dot"),
    "nonlocal1_resnet50_concatenation": NonLocalConfig(ONE, "concatenation"),
    "nonlocal5_resnet50": NonLocalConfig(FIVE, "gaussian"),
}
