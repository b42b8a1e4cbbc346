"""CaiT: a deep ViT with scaled branches and talking heads, whose class token comes late and reads alone.

"Going deeper with Image Transformers", Touvron et al., 2021, table 3:

| model | C | heads |
|---|---|---|
| XXS-24, XXS-36 | 192 | 4 |
| XS-24 | 288 | 6 |
| S-24, S-36, S-48 | 384 | 8 |
| M-36, M-48 | 768 | 16 |

The number is that of the layers on patches; 2 layers of class attention follow, in which patches stay as they are.
Details that are easy to get wrong: positions have no place for the class token, heads are mixed before and after the
softmax, the drop path rate is the same in all layers and zero in those of the class token, and LayerScale begins at
1e-5 up to 24 layers (XXS-36 too) and at 1e-6 in S-36, M-36 and M-48.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block, PrefixBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.head_mixing import HeadLinear, HeadMixingAttend
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

AT_224, AT_384, AT_448 = (Preprocess(size, crop=1.0) for size in (224, 384, 448))


@dataclass(frozen=True)
class CaiTConfig:
    """The numbers of a CaiT; `class_depth` counts the layers of class attention."""

    dim: int
    depth: int
    num_heads: int
    class_depth: int = 2
    layer_scale: float = 1e-5
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_384


def build(config: CaiTConfig) -> Classifier:
    """Assemble a CaiT from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["cait_xxs24_224"])
        >>> sum(value.numel() for value in model.parameters())
        11956264
    """
    c = config
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size), [LearnedPosition(c.dim, Grid(side, side))]
    )
    blocks = [build_block(c, Block, talking_heads(c), c.drop_path) for _ in range(c.depth)]
    class_blocks = [build_block(c, PrefixBlock, ClassAttention(c.dim, c.num_heads), 0.0) for _ in range(c.class_depth)]
    stages = [Stage(blocks), Stage(class_blocks, entry=PrefixTokens(c.dim))]
    backbone = Backbone(embedding, stages, nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise(model)
    return model


def talking_heads(c: CaiTConfig) -> SelfAttention:
    """Assemble self-attention whose heads are mixed before and after the softmax."""
    attend = HeadMixingAttend(before=HeadLinear(c.num_heads), after=HeadLinear(c.num_heads))
    return SelfAttention(c.dim, c.num_heads, attend=attend)


def build_block(c: CaiTConfig, kind: type[Block], token_mixer: nn.Module, rate: float) -> Block:
    """Assemble one block with LayerScale on both branches."""
    return kind(
        norm1=nn.LayerNorm(c.dim, eps=1e-6),
        token_mixer=token_mixer,
        norm2=nn.LayerNorm(c.dim, eps=1e-6),
        channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
        drop_path=rate,
        scale1=LayerScale(c.dim, c.layer_scale),
        scale2=LayerScale(c.dim, c.layer_scale),
    )


XXS24 = CaiTConfig(dim=192, depth=24, num_heads=4)
XXS36 = replace(XXS24, depth=36)
S24 = CaiTConfig(dim=384, depth=24, num_heads=8)
M36 = CaiTConfig(dim=768, depth=36, num_heads=16, layer_scale=1e-6)

VARIANTS = {
    "cait_xxs24_224": replace(XXS24, preprocess=AT_224),
    "cait_xxs24_384": XXS24,
    "cait_xxs36_224": replace(XXS36, preprocess=AT_224),
    "cait_xxs36_384": XXS36,
    "cait_xs24_384": CaiTConfig(dim=288, depth=24, num_heads=6),
    "cait_s24_224": replace(S24, preprocess=AT_224),
    "cait_s24_384": S24,
    "cait_s36_384": replace(S24, depth=36, layer_scale=1e-6),
    "cait_m36_384": M36,
    "cait_m48_448": replace(M36, depth=48, preprocess=AT_448),
}
