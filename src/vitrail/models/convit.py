"""ConViT: a ViT whose first layers can be, and begin as, convolutions.

"ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases", d'Ascoli et al., 2021, table 1:

| model | layers | C | heads |
|---|---|---|---|
| Ti | 12 | 192 | 4 |
| S | 12 | 432 | 9 |
| B | 12 | 768 | 16 |

The first 10 layers are gated positional self-attention (GPSA) between patches, the last 2 self-attention; the class
token comes before these. A square number of heads begins as the cells of a square filter: head (i, j) looks at the
offset (i, j) from the centre. Details that are easy to get wrong: no bias for queries, keys and values; a position
table for patches is added as well; scores of positions pass a softmax of their own, after which the gate mixes.
"""

from dataclasses import dataclass

import torch
from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.gated_attention import GatedAttend, RelativeOffsetScores
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

AT_224 = Preprocess(crop=0.875)


@dataclass(frozen=True)
class ConViTConfig:
    """The numbers of a ConViT: `depth` layers of GPSA, then `class_depth` of self-attention with the class token."""

    dim: int
    num_heads: int
    depth: int = 10
    class_depth: int = 2
    locality: float = 1.0
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: ConViTConfig) -> Classifier:
    """Assemble a ConViT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["convit_tiny"])
        >>> sum(value.numel() for value in model.parameters())
        5710512
    """
    c = config
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size), [LearnedPosition(c.dim, Grid(side, side))]
    )
    rates = drop_path_rates(c.drop_path, c.depth + c.class_depth)
    local = [build_block(c, gated_attention(c), rate) for rate in rates[: c.depth]]
    last = [build_block(c, SelfAttention(c.dim, c.num_heads, qkv_bias=False), rate) for rate in rates[c.depth :]]
    stages = [Stage(local), Stage(last, entry=PrefixTokens(c.dim))]
    backbone = Backbone(embedding, stages, nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise(model)
    for block in local:
        begin_as_convolution(block.token_mixer, c.locality)
    return model


def gated_attention(c: ConViTConfig) -> SelfAttention:
    """Assemble gated positional self-attention."""
    return SelfAttention(
        c.dim,
        c.num_heads,
        qkv_bias=False,
        position=RelativeOffsetScores(c.num_heads),
        attend=GatedAttend(c.num_heads),
    )


def build_block(c: ConViTConfig, token_mixer: nn.Module, rate: float) -> Block:
    """Assemble one block."""
    return Block(
        norm1=nn.LayerNorm(c.dim, eps=1e-6),
        token_mixer=token_mixer,
        norm2=nn.LayerNorm(c.dim, eps=1e-6),
        channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
        drop_path=rate,
    )


@torch.no_grad()
def begin_as_convolution(mixer: nn.Module, locality: float) -> None:
    """Let head (i, j) of a square of heads look at the offset (i, j) from its centre; values are the tokens.

    w_h = locality (2 dx_h, 2 dy_h, -1), section 3; heads beyond the largest square look everywhere alike.
    """
    assert isinstance(mixer, SelfAttention) and isinstance(mixer.position, RelativeOffsetScores)
    side, slope = int(mixer.num_heads**0.5), mixer.position.slope
    centre = (side - 1) / 2 if side % 2 == 0 else side // 2
    slope.zero_()
    for h in range(side**2):
        dy, dx = h % side - centre, h // side - centre
        slope[h] = locality * torch.tensor([2 * dx, 2 * dy, -1.0])
    nn.init.eye_(mixer.qkv.weight.chunk(3)[2])


VARIANTS = {
    "convit_tiny": ConViTConfig(dim=192, num_heads=4),
    "convit_small": ConViTConfig(dim=432, num_heads=9),
    "convit_base": ConViTConfig(dim=768, num_heads=16),
}
