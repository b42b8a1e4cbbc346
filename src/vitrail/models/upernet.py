"""UperNet: semantic segmentation on the pyramid of any backbone.

"Unified Perceptual Parsing for Scene Understanding", Xiao et al., 2018, with the numbers of "Swin Transformer", section
4.3 (512 channels, auxiliary FCN head on the third level), for ADE20K at 512 x 512:

| model | backbone | parameters |
|---|---|---|
| Swin-T | swin_tiny | 60 M |
| Swin-S | swin_small | 81 M |
| Swin-B | swin_base | 121 M |

Another backbone is named by `backbone`, its fields by `backbone_config`: `create_model("upernet",
backbone="vit_tiny_patch16_224")`. Images are normalised as the backbone does.
"""

from dataclasses import dataclass, replace

from vitrail.models.dense_backbone import AT_512, named_backbone
from vitrail.parts.decoders.light import FCNDecoder
from vitrail.parts.decoders.pyramid import pyramid_maps
from vitrail.parts.decoders.segmenter import PixelClassifier, SegmentationHead, Segmenter
from vitrail.parts.decoders.upernet import UperNetDecoder
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

OF_VIT = replace(AT_512, mean=HALF_MEAN, std=HALF_STD)


@dataclass(frozen=True)
class UperNetConfig:
    """The numbers of a UperNet."""

    backbone: str
    backbone_config: tuple[tuple[str, object], ...] = ()
    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    auxiliary_channels: int = 256
    dropout: float = 0.1
    num_classes: int = 150
    in_channels: int = 3
    preprocess: Preprocess = AT_512


def build(config: UperNetConfig) -> Segmenter:
    """Assemble a UperNet from its numbers."""
    c, backbone = config, named_backbone(config)
    maps = pyramid_maps(backbone, c.in_channels, c.preprocess.size)
    main = PixelClassifier(UperNetDecoder(maps.channels, c.channels, c.pool_scales), c.num_classes, c.dropout)
    fcn = FCNDecoder(max(len(maps.channels) - 2, 0), maps.channels, c.auxiliary_channels)
    return Segmenter(backbone, SegmentationHead(maps, main, PixelClassifier(fcn, c.num_classes, c.dropout)))


SWIN = (("drop_path", 0.3), ("edge", "shifted"))
"""The authors' segmentation code shifts the windows of every map, as mmsegmentation and Hugging Face do."""

VARIANTS = {
    "upernet_swin_tiny": UperNetConfig("swin_tiny_patch4_window7_224", SWIN),
    "upernet_swin_small": UperNetConfig("swin_small_patch4_window7_224", SWIN),
    "upernet_swin_base": UperNetConfig("swin_base_patch4_window7_224", SWIN),
    "upernet_convnext_tiny": UperNetConfig("convnext_tiny"),
    "upernet_convnext_small": UperNetConfig("convnext_small"),
    "upernet_convnext_base": UperNetConfig("convnext_base"),
    "upernet": UperNetConfig("vit_tiny_patch16_224", preprocess=OF_VIT, channels=128, auxiliary_channels=64),
}
