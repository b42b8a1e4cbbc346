"""CCT and CVT: compact Transformers that learn from small data sets.

"Escaping the Big Data Paradigm with Compact Transformers", Hassani et al., 2021, table 1, and the authors' code:

| model | layers | C | heads | MLP ratio |
|---|---|---|---|---|
| 2 | 2 | 128 | 2 | 1 |
| 4 | 4 | 128 | 2 | 1 |
| 6 | 6 | 256 | 4 | 2 |
| 7 | 7 | 256 | 4 | 2 |
| 14 | 14 | 384 | 6 | 3 |

The names are the authors': CCT-7/3x1 has 7 layers after 1 layer of 3 x 3 convolution, ReLU and max pooling
(`conv_layers`); CVT-7/4 has patches of 4 pixels (`conv_layers` None). Both pool the tokens by attention (SeqPool) and
have no class token. Details that are easy to get wrong: queries, keys and values have no bias, and the second norm of a
block is on the residual stream. Any height and width from 1 up.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead
from vitrail.parts.initialisation import initialise
from vitrail.parts.pooled_conv_tokenizer import PooledConvTokenizer
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.regularisation import drop_path_rates
from vitrail.parts.sequence_pool import SequencePool
from vitrail.parts.stages import Stage
from vitrail.parts.stream_norm_block import StreamNormBlock
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.preprocess import Preprocess

CIFAR = Preprocess(32, crop=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
AT_224, AT_384 = Preprocess(), Preprocess(384, crop=1.0)


@dataclass(frozen=True)
class CCTConfig:
    """Hyperparameters of a CCT, or of a CVT (`conv_layers` None); `kernel_size` is the side of filters or patches."""

    dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    kernel_size: int = 3
    stride: int = 1
    conv_layers: int | None = 1
    drop_path: float = 0.1
    num_classes: int = 10
    in_channels: int = 3
    preprocess: Preprocess = CIFAR


def build(config: CCTConfig) -> Classifier:
    """Assemble a CCT or CVT from its config.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["cct_2_3x2_32"])
        >>> sum(value.numel() for value in model.parameters())
        283723
    """
    c = config
    patches = build_patches(c)
    with torch.no_grad(), torch.device("meta"):  # the grid at the image size of the config
        _, grid = build_patches(c)(torch.empty(1, c.in_channels, c.preprocess.size, c.preprocess.size))
    blocks = [
        StreamNormBlock(
            norm1=nn.LayerNorm(c.dim),
            token_mixer=SelfAttention(c.dim, c.num_heads, qkv_bias=False),
            norm2=nn.LayerNorm(c.dim),
            channel_mixer=MLP(c.dim, int(c.dim * c.mlp_ratio)),
            drop_path=rate,
        )
        for rate in drop_path_rates(c.drop_path, c.depth)
    ]
    embedding = Embedding(patches, [LearnedPosition(c.dim, grid)])
    backbone = Backbone(embedding, [Stage(blocks)], nn.LayerNorm(c.dim))
    model = Classifier(backbone, LinearHead(SequencePool(c.dim), c.dim, c.num_classes))
    initialise(model)
    return model


def build_patches(c: CCTConfig) -> nn.Module:
    """Return the tokenizer: convolutions with pooling (CCT), or patches (CVT)."""
    if c.conv_layers:
        return PooledConvTokenizer(c.in_channels, c.dim, c.kernel_size, c.stride, c.conv_layers)
    return PatchEmbedding(c.in_channels, c.dim, c.kernel_size)


TWO = CCTConfig(dim=128, depth=2, num_heads=2, mlp_ratio=1.0)
SIX = CCTConfig(dim=256, depth=6, num_heads=4, mlp_ratio=2.0)
FOUR, SEVEN = replace(TWO, depth=4), replace(SIX, depth=7)
FOURTEEN = CCTConfig(384, 14, 6, 3.0, kernel_size=7, stride=2, conv_layers=2, num_classes=1000, preprocess=AT_224)

VARIANTS = {
    "cct_2_3x2_32": replace(TWO, conv_layers=2),
    "cct_4_3x2_32": replace(FOUR, conv_layers=2),
    "cct_6_3x1_32": SIX,
    "cct_6_3x2_32": replace(SIX, conv_layers=2),
    "cct_7_3x1_32": SEVEN,
    "cct_7_3x2_32": replace(SEVEN, conv_layers=2),
    "cct_14_7x2_224": FOURTEEN,
    "cct_14_7x2_384": replace(FOURTEEN, preprocess=AT_384),
    "cvt_6_4_32": replace(SIX, kernel_size=4, conv_layers=None),
    "cvt_7_4_32": replace(SEVEN, kernel_size=4, conv_layers=None),
}
