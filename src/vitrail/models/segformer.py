"""SegFormer: an MLP decoder on the pyramid of any backbone.

"SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", Xie et al., 2021, tables 1 and 6:

| model | layers | widths | decoder |
|---|---|---|---|
| B0 | 2, 2, 2, 2 | 32, 64, 160, 256 | 256 |
| B1 | 2, 2, 2, 2 | 64, 128, 320, 512 | 256 |
| B2 | 3, 4, 6, 3 | 64, 128, 320, 512 | 768 |
| B3 | 3, 4, 18, 3 | 64, 128, 320, 512 | 768 |
| B4 | 3, 8, 27, 3 | 64, 128, 320, 512 | 768 |
| B5 | 3, 6, 40, 3 | 64, 128, 320, 512 | 768 |

Its encoder, the Mix Transformer, is PVT v2 with MLPs of four times the width in every stage. Another backbone is named
by `backbone`, its fields by `backbone_config`.
"""

from dataclasses import dataclass, replace

from vitrail.models.dense_backbone import AT_512, named_backbone
from vitrail.parts.decoders.light import MLPDecoder
from vitrail.parts.decoders.pyramid import pyramid_maps
from vitrail.parts.decoders.segmenter import PixelClassifier, SegmentationHead, Segmenter
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

OF_VIT = replace(AT_512, mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class SegFormerConfig:
    """The numbers of a SegFormer."""

    backbone: str
    backbone_config: tuple[tuple[str, object], ...] = ()
    channels: int = 256
    dropout: float = 0.1
    num_classes: int = 150
    in_channels: int = 3
    preprocess: Preprocess = AT_512


def build(config: SegFormerConfig) -> Segmenter:
    """Assemble a SegFormer from its numbers."""
    c, backbone = config, named_backbone(config)
    maps = pyramid_maps(backbone, c.in_channels, c.preprocess.size)
    main = PixelClassifier(MLPDecoder(maps.channels, c.channels), c.num_classes, c.dropout)
    return Segmenter(backbone, SegmentationHead(maps, main))


MIX = (("drop_path", 0.1), ("mlp_ratios", (4.0, 4.0, 4.0, 4.0)))

VARIANTS = {
    "segformer_b0": SegFormerConfig("pvt_v2_b0", MIX),
    "segformer_b1": SegFormerConfig("pvt_v2_b1", MIX),
    "segformer_b2": SegFormerConfig("pvt_v2_b2", MIX, channels=768),
    "segformer_b3": SegFormerConfig("pvt_v2_b3", MIX, channels=768),
    "segformer_b4": SegFormerConfig("pvt_v2_b4", MIX, channels=768),
    "segformer_b5": SegFormerConfig("pvt_v2_b5", MIX, channels=768),
    "segformer": SegFormerConfig("vit_tiny_patch16_224", preprocess=OF_VIT, channels=128),
}
