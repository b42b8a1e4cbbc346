"""ConvNeXt V1 and V2: a ResNet with the proportions of Swin, and a norm that makes channels compete.

"A ConvNet for the 2020s", Liu et al., 2022, section 3 (T to XL; atto to nano are timm's), and "ConvNeXt V2:
Co-designing and Scaling ConvNets with Masked Autoencoders", Woo et al., 2023, appendix A:

| model | C | layers |
|---|---|---|
| atto, femto, pico | 40, 48, 64 | 2, 2, 6, 2 |
| nano | 80 | 2, 2, 8, 2 |
| T | 96 | 3, 3, 9, 3 |
| S, B, L, XL (V1), H (V2) | 96, 128, 192, 256, 352 | 3, 3, 27, 3 |

A block has one residual branch: depthwise 7 x 7 convolution, LayerNorm, MLP. V1 scales it by a learned factor; V2 has
no factor and global response normalisation in the MLP. The 2 x 2 convolution between stages drops the last row or
column of an odd map, as in every library; an image that is no multiple of 4 is padded, where others drop the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import ConvNeXtBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.global_response_norm import GlobalResponseNorm
from vitrail.parts.heads import LinearHead, NormedMean
from vitrail.parts.initialisation import initialise
from vitrail.parts.merging import NoMerging, PreNormConvMerging
from vitrail.parts.regularisation import LayerScale, drop_path_rates
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.depthwise_convolution import DepthwiseConvolution
from vitrail.preprocess import Preprocess

layer_norm: Callable[[int], nn.Module] = partial(nn.LayerNorm, eps=1e-6)
CROP_875, CROP_95 = Preprocess(crop=0.875), Preprocess(crop=0.95)


@dataclass(frozen=True)
class ConvNeXtConfig:
    """The numbers of a ConvNeXt; V2 has `response_norm` and no `layer_scale`."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    layer_scale: float | None = 1e-6
    response_norm: bool = False
    drop_path: float = 0.1
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    in_channels: int = 3
    last_norm_eps: float = 1e-6
    preprocess: Preprocess = CROP_875


def build(config: ConvNeXtConfig) -> Classifier:
    """Assemble a ConvNeXt from its numbers."""
    c = config
    rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
    stages = []
    for i, (dim, depth) in enumerate(zip(c.dims, c.depths, strict=True)):
        before = c.dims[i - 1]
        entry = PreNormConvMerging(layer_norm(before), before, dim, kernel_size=2) if i else NoMerging()
        stages.append(Stage([build_block(c, dim, next(rates)) for _ in range(depth)], entry))
    embedding = Embedding(PatchEmbedding(c.in_channels, c.dims[0], patch_size=4, norm=layer_norm(c.dims[0])))
    head = LinearHead(NormedMean(c.dims[-1], c.last_norm_eps), c.dims[-1], c.num_classes)
    model = Classifier(Backbone(embedding, stages, nn.Identity()), head)
    initialise(model)
    return model


def build_block(c: ConvNeXtConfig, dim: int, rate: float) -> ConvNeXtBlock:
    """Assemble one block of one stage."""
    hidden = int(dim * c.mlp_ratio)
    act = nn.Sequential(nn.GELU(), GlobalResponseNorm(hidden)) if c.response_norm else nn.GELU()
    scale = None if c.layer_scale is None else LayerScale(dim, c.layer_scale)
    return ConvNeXtBlock(DepthwiseConvolution(dim), layer_norm(dim), MLP(dim, hidden, act), rate, scale)


SHALLOW, DEEP = (2, 2, 6, 2), (3, 3, 27, 3)
SIZES = {  # first width, layers
    "atto": (40, SHALLOW),
    "femto": (48, SHALLOW),
    "pico": (64, SHALLOW),
    "nano": (80, (2, 2, 8, 2)),
    "tiny": (96, (3, 3, 9, 3)),
    "small": (96, DEEP),
    "base": (128, DEEP),
    "large": (192, DEEP),
    "xlarge": (256, DEEP),
    "huge": (352, DEEP),
}
RATES = {"small": 0.4, "base": 0.5, "large": 0.5, "xlarge": 0.5}  # section A.1 of the first paper; 0.1 for the others


def version1(size: str) -> ConvNeXtConfig:
    """Return the config of one size of the first version."""
    dim, depths = SIZES[size]
    dims = tuple(dim * 2**i for i in range(4))
    crop = CROP_95 if size == "nano" else CROP_875
    return ConvNeXtConfig(dims, depths, drop_path=RATES.get(size, 0.1), preprocess=crop)


def version2(size: str) -> ConvNeXtConfig:
    """Return the config of one size of the second version."""
    dim, depths = SIZES[size]
    dims = tuple(dim * 2**i for i in range(4))
    return ConvNeXtConfig(dims, depths, None, True, drop_path=0.2 if size == "tiny" else 0.1)


VARIANTS = {
    **{f"convnext_{size}": version1(size) for size in SIZES if size != "huge"},
    **{f"convnextv2_{size}": version2(size) for size in SIZES if size != "xlarge"},
}
