"""V-MoE: a ViT in which the MLPs of some blocks are sparse mixtures of experts.

"Scaling Vision with Sparse Mixture of Experts", Riquelme et al., 2021, sections 2 and B; the released sizes:

| model | patch | C | layers | heads | experts, of which a token uses |
|---|---|---|---|---|---|
| S/32 | 32 | 512 | 8 | 8 | 8, 2 |
| B/16 | 16 | 768 | 12 | 12 | 8, 2 |

| placement | blocks with experts (S, B) |
|---|---|
| every 2 | 1, 3, 5, 7; 1, 3, 5, 7, 9, 11 |
| last 2 | 5, 7; 9, 11 |

The S is not DeiT's: it has 8 layers of 512 channels. GELU is the tanh approximation, as in the authors' code.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.errors import unknown
from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise_as_vit
from vitrail.parts.mixture_of_experts import MixtureOfExperts
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.routing import BatchPriority, TokenOrder, TopExpertsRouter
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

AT_224 = Preprocess(224, crop=224 / 256, mean=HALF_MEAN, std=HALF_STD)
PRIORITIES = {"order": TokenOrder, "batch": BatchPriority}


@dataclass(frozen=True)
class VMoEConfig:
    """The numbers of a V-MoE; `expert_blocks` are the blocks with experts, `priority` is `order` or `batch`."""

    patch_size: int
    dim: int
    depth: int
    num_heads: int
    expert_blocks: tuple[int, ...]
    num_experts: int = 8
    selected: int = 2
    capacity: float = 1.05
    noise: float = 1.0
    priority: str = "order"
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: VMoEConfig) -> Classifier:
    """Assemble a V-MoE from its numbers.

    Raises:
        VitrailError: if `priority` is neither `order` nor `batch`, or more experts are selected than there are.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["vmoe_s32_last2"])
        >>> sum(value.numel() for value in model.parameters())
        56736744
    """
    c = config
    if c.priority not in PRIORITIES:
        raise unknown("priority", c.priority, PRIORITIES)
    side = -(-c.preprocess.size // c.patch_size)
    steps = [PrefixTokens(c.dim), LearnedPosition(c.dim, Grid(side, side, prefix=1))]
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dim, c.patch_size), steps)
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=SelfAttention(c.dim, c.num_heads),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=experts(c) if i in c.expert_blocks else MLP(c.dim, hidden(c), nn.GELU("tanh")),
            drop_path=rate,
        )
        for i, rate in enumerate(drop_path_rates(c.drop_path, c.depth))
    ]
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise_as_vit(model)
    return model


def hidden(c: VMoEConfig) -> int:
    """Channels between the two layers of an MLP."""
    return int(c.dim * c.mlp_ratio)


def experts(c: VMoEConfig) -> MixtureOfExperts:
    """Assemble the experts of one block."""
    router = TopExpertsRouter(c.dim, c.num_experts, c.selected, c.capacity, c.noise, PRIORITIES[c.priority]())
    return MixtureOfExperts(router, c.dim, hidden(c), nn.GELU("tanh"))


SMALL = VMoEConfig(patch_size=32, dim=512, depth=8, num_heads=8, expert_blocks=(5, 7))
BASE = VMoEConfig(patch_size=16, dim=768, depth=12, num_heads=12, expert_blocks=(9, 11))

VARIANTS = {
    "vmoe_s32_last2": SMALL,
    "vmoe_s32_every2": replace(SMALL, expert_blocks=(1, 3, 5, 7)),
    "vmoe_b16_last2": BASE,
    "vmoe_b16_every2": replace(BASE, expert_blocks=(1, 3, 5, 7, 9, 11)),
}
