"""DeiT: a ViT that needs no more images than ImageNet's, and learns from a teacher through a token of its own.

"Training data-efficient image transformers & distillation through attention", Touvron et al., 2021, table 1:

| model | layers | C | heads |
|---|---|---|---|
| Ti | 12 | 192 | 3 |
| S | 12 | 384 | 6 |
| B | 12 | 768 | 12 |

The structure is ViT's; the distilled variants carry a second prefix token with a head of its own. Details that are easy
to get wrong: inputs are normalised by ImageNet's mean and deviation (ViT: by 0.5), and at inference the two heads'
logits are averaged (section 4 of the paper speaks of adding their softmaxes; the published figures are the logits').
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.heads import DistilledHead, FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

AT_224, AT_384 = Preprocess(), Preprocess(384, crop=1.0)


@dataclass(frozen=True)
class DeiTConfig:
    """The numbers of a DeiT; `distilled` adds the distillation token and its head.

    Without `distilled_head` the token has no head, as in Hugging Face's `DeiTForImageClassification`.
    """

    dim: int
    depth: int
    num_heads: int
    distilled: bool = False
    distilled_head: bool = True
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    norm_eps: float = 1e-6
    preprocess: Preprocess = AT_224


def build(config: DeiTConfig) -> Classifier:
    """Assemble a DeiT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["deit_tiny_patch16_224"])
        >>> sum(value.numel() for value in model.parameters())
        5717416
    """
    c = config
    prefix = 2 if c.distilled else 1
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size),
        [PrefixTokens(c.dim, prefix), LearnedPosition(c.dim, Grid(side, side, prefix))],
    )
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=c.norm_eps),
            token_mixer=SelfAttention(c.dim, c.num_heads),
            norm2=nn.LayerNorm(c.dim, eps=c.norm_eps),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=c.norm_eps))
    two_heads = c.distilled and c.distilled_head
    head = DistilledHead(c.dim, c.num_classes) if two_heads else LinearHead(FirstToken(), c.dim, c.num_classes)
    model = Classifier(backbone, head)
    initialise(model)
    return model


TINY = DeiTConfig(dim=192, depth=12, num_heads=3)
SMALL = DeiTConfig(dim=384, depth=12, num_heads=6)
BASE = DeiTConfig(dim=768, depth=12, num_heads=12)

VARIANTS = {
    "deit_tiny_patch16_224": TINY,
    "deit_small_patch16_224": SMALL,
    "deit_base_patch16_224": BASE,
    "deit_base_patch16_384": replace(BASE, preprocess=AT_384),
    "deit_tiny_distilled_patch16_224": replace(TINY, distilled=True),
    "deit_small_distilled_patch16_224": replace(SMALL, distilled=True),
    "deit_base_distilled_patch16_224": replace(BASE, distilled=True),
    "deit_base_distilled_patch16_384": replace(BASE, distilled=True, preprocess=AT_384),
}
