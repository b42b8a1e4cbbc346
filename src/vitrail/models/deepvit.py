"""DeepViT: a deep ViT whose attention maps are mixed across heads, so that they do not become alike.

"DeepViT: Towards Deeper Vision Transformer", Zhou et al., 2021, table 5:

| model | layers | C | MLP | heads |
|---|---|---|---|---|
| 16B | 16 | 384 | 1152 | 12 |
| 24B | 24 | 384 | 1152 | 12 |
| 32B | 32 | 384 | 1152 | 12 |

Re-attention, equation 3: Norm(Theta^T softmax(q k^T / sqrt(d))) v. Details that are easy to get wrong: Theta is a 1 x 1
convolution over heads with a bias, Norm is a BatchNorm over heads, in every block, and rows of the maps no longer sum
to one; the MLP is 3 times as wide as the tokens.
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.grid import Grid
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding, PrefixTokens
from vitrail.parts.head_mixing import HeadLinear, HeadMixingAttend
from vitrail.parts.heads import FirstToken, LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

AT_224 = Preprocess()


@dataclass(frozen=True)
class DeepViTConfig:
    """The numbers of a DeepViT."""

    depth: int
    dim: int = 384
    num_heads: int = 12
    patch_size: int = 16
    mlp_ratio: float = 3.0
    drop_path: float = 0.2
    num_classes: int = 1000
    in_channels: int = 3
    preprocess: Preprocess = AT_224


def build(config: DeepViTConfig) -> Classifier:
    """Assemble a DeepViT from its numbers."""
    c = config
    side = -(-c.preprocess.size // c.patch_size)
    embedding = Embedding(
        PatchEmbedding(c.in_channels, c.dim, c.patch_size),
        [PrefixTokens(c.dim), LearnedPosition(c.dim, Grid(side, side, prefix=1))],
    )
    blocks = [
        Block(
            norm1=nn.LayerNorm(c.dim, eps=1e-6),
            token_mixer=SelfAttention(c.dim, c.num_heads, attend=re_attention(c.num_heads)),
            norm2=nn.LayerNorm(c.dim, eps=1e-6),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim, eps=1e-6))
    model = Classifier(backbone, LinearHead(FirstToken(), c.dim, c.num_classes))
    initialise(model)
    return model


def re_attention(num_heads: int) -> HeadMixingAttend:
    """Assemble the leaf of re-attention."""
    return HeadMixingAttend(after=nn.Sequential(HeadLinear(num_heads), nn.BatchNorm2d(num_heads)))


DEEP_16 = DeepViTConfig(depth=16)

VARIANTS = {
    "deepvit_patch16_224_re_attn_16b": DEEP_16,
    "deepvit_patch16_224_re_attn_24b": replace(DEEP_16, depth=24),
    "deepvit_patch16_224_re_attn_32b": replace(DEEP_16, depth=32),
}
