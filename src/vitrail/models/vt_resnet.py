"""VT-ResNet: a ResNet whose last stage is replaced by Transformers on 16 visual tokens.

"Visual Transformers: Token-based Image Representation and Processing for Computer Vision", Wu et al., 2020,
section 4.1:

| model | layers of the ResNet | visual Transformers | tokens | channels of the map and of a token |
|---|---|---|---|---|
| VT-R50 | 3, 4, 6 | 3 | 16 | 1024 |
| VT-R101 | 3, 4, 23 | 3 | 16 | 1024 |

The first tokens are made by filters, later ones by recurrent tokenizers (`filter`: all by filters). The head reads the
mean of the tokens, so the last block has no projector. The features are the tokens (the prefix) and the cells.
"""

from dataclasses import dataclass

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.embeddings import ConvStem, Embedding
from vitrail.parts.heads import LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.resnet_stem import plain_stem
from vitrail.parts.stages import Stage
from vitrail.parts.visual_tokens import (
    FilterTokenizer,
    KeepTokens,
    MeanPrefix,
    NoProjector,
    Projector,
    RecurrentTokenizer,
    TokenStep,
    VisualTransformerBlock,
)
from vitrail.preprocess import Preprocess

AT_224 = Preprocess()
TOKENIZERS = ("filter", "recurrent")


@dataclass(frozen=True)
class VTResNetConfig:
    """The numbers of a VT-ResNet; `depth` counts the visual Transformers."""

    depths: tuple[int, ...]
    tokenizer: str
    depth: int = 3
    tokens: int = 16
    dim: int = 64
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: VTResNetConfig) -> Classifier:
    """Assemble a VT-ResNet from its numbers.

    Raises:
        VitrailError: if `tokenizer` is neither `filter` nor `recurrent`.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["vt_resnet50"])
        >>> sum(value.numel() for value in model.parameters())
        21381160
    """
    c = config
    if c.tokenizer not in TOKENIZERS:
        raise unknown("tokenizer", c.tokenizer, TOKENIZERS)
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths) + c.depth))
    stages, dim = [], c.dim
    for i, depth in enumerate(c.depths):
        before, dim = dim, 4 * c.dim * 2**i
        entry = AttentionEntry(before, dim, stride=2 if i else 1, drop_path=next(rates))
        stages.append(Stage([AttentionBottleneck(dim, dim, drop_path=next(rates)) for _ in range(depth - 1)], entry))
    blocks: list[nn.Module] = []
    for i in range(c.depth):
        later = RecurrentTokenizer(dim) if c.tokenizer == "recurrent" else FilterTokenizer(dim, c.tokens)
        projector = Projector(dim) if i < c.depth - 1 else NoProjector()
        blocks.append(VisualTransformerBlock(dim, later if i else KeepTokens(), projector, next(rates)))
    stages.append(Stage(blocks, TokenStep(FilterTokenizer(dim, c.tokens))))
    pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    embedding = Embedding(ConvStem(plain_stem(c.in_channels, c.dim), nn.Identity(), pool))
    model = Classifier(Backbone(embedding, stages, nn.Identity()), LinearHead(MeanPrefix(), dim, c.num_classes))
    initialise(model)
    return model


VARIANTS = {
    "vt_resnet50": VTResNetConfig((3, 4, 6), "recurrent"),
    "vt_resnet50_filter": VTResNetConfig((3, 4, 6), "filter"),
    "vt_resnet101": VTResNetConfig((3, 4, 23), "recurrent"),
}
