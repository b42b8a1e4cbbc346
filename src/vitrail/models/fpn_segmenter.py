"""FPN segmenter: the lightest decoder, sums of a feature pyramid and one convolution, on any backbone.

The network of "Feature Pyramid Networks for Object Detection", Lin et al., 2017, section 3, whose finest map is
classified pixel by pixel. No published weights; it is the decoder to train on a CPU.
"""

from dataclasses import dataclass, replace

from vitrail.models.dense_backbone import AT_512, named_backbone
from vitrail.parts.decoders.light import FPNDecoder
from vitrail.parts.decoders.pyramid import pyramid_maps
from vitrail.parts.decoders.segmenter import PixelClassifier, SegmentationHead, Segmenter
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

OF_VIT = replace(AT_512, mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class FPNSegmenterConfig:
    """The numbers of an FPN segmenter."""

    backbone: str
    backbone_config: tuple[tuple[str, object], ...] = ()
    channels: int = 128
    dropout: float = 0.1
    num_classes: int = 150
    in_channels: int = 3
    preprocess: Preprocess = AT_512


def build(config: FPNSegmenterConfig) -> Segmenter:
    """Assemble an FPN segmenter from its numbers."""
    c, backbone = config, named_backbone(config)
    maps = pyramid_maps(backbone, c.in_channels, c.preprocess.size)
    main = PixelClassifier(FPNDecoder(maps.channels, c.channels), c.num_classes, c.dropout)
    return Segmenter(backbone, SegmentationHead(maps, main))


VARIANTS = {"fpn_segmenter": FPNSegmenterConfig("vit_tiny_patch16_224", preprocess=OF_VIT)}
