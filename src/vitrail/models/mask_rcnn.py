"""Mask R-CNN: boxes and instance masks on the pyramid of any backbone.

"Mask R-CNN", He et al., 2017: Faster R-CNN (see `faster_rcnn`) and a mask head, with torchvision's numbers.

Another backbone is named by `backbone`, its fields by `backbone_config`. Images are normalised as the backbone does.
"""

from dataclasses import dataclass

from vitrail.models.dense_backbone import AT_800, DetectorConfig, named_backbone
from vitrail.parts.decoders.pyramid import NoLevelNorm, pyramid_maps
from vitrail.parts.detection.detector import Detector
from vitrail.parts.detection.head import DetectionHead, mask_parts


@dataclass(frozen=True)
class MaskRCNNConfig(DetectorConfig):
    """The numbers of a Mask R-CNN."""


def build(config: MaskRCNNConfig) -> Detector:
    """Assemble a Mask R-CNN from its numbers."""
    c, backbone = config, named_backbone(config)
    norm = {"norm": NoLevelNorm} if c.level_norm == "none" else {}
    maps = pyramid_maps(backbone, c.in_channels, c.preprocess.size, **norm)
    masks = mask_parts(maps.strides, c.num_classes, c.channels)
    return Detector(backbone, DetectionHead(maps, c.num_classes, c.channels, c.hidden, c.anchor_scale, masks))


VARIANTS = {
    "mask_rcnn_resnet50": MaskRCNNConfig("resnet50", level_norm="none", num_classes=90, preprocess=AT_800),
    "mask_rcnn_swin_tiny": MaskRCNNConfig("swin_tiny_patch4_window7_224"),
    "mask_rcnn": MaskRCNNConfig("vit_tiny_patch16_224", channels=128, hidden=512),
}
