"""Faster R-CNN with a feature pyramid network, on any backbone.

"Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", Ren et al., 2015, on the pyramid of
"Feature Pyramid Networks for Object Detection", Lin et al., 2017, with torchvision's numbers. A plain ViT gets a simple
feature pyramid ("Exploring Plain Vision Transformer Backbones for Object Detection", Li et al., 2022).

Another backbone is named by `backbone`, its fields by `backbone_config`. Images are normalised as the backbone does.
"""

from dataclasses import dataclass

from vitrail.models.dense_backbone import AT_800, DetectorConfig, named_backbone
from vitrail.parts.decoders.pyramid import NoLevelNorm, pyramid_maps
from vitrail.parts.detection.detector import Detector
from vitrail.parts.detection.head import DetectionHead


@dataclass(frozen=True)
class FasterRCNNConfig(DetectorConfig):
    """The numbers of a Faster R-CNN."""


def build(config: FasterRCNNConfig) -> Detector:
    """Assemble a Faster R-CNN from its numbers."""
    c, backbone = config, named_backbone(config)
    norm = {"norm": NoLevelNorm} if c.level_norm == "none" else {}
    maps = pyramid_maps(backbone, c.in_channels, c.preprocess.size, **norm)
    return Detector(backbone, DetectionHead(maps, c.num_classes, c.channels, c.hidden, c.anchor_scale))


VARIANTS = {
    "faster_rcnn_resnet50": FasterRCNNConfig("resnet50", level_norm="none", num_classes=90, preprocess=AT_800),
    "faster_rcnn_swin_tiny": FasterRCNNConfig("swin_tiny_patch4_window7_224"),
    "faster_rcnn": FasterRCNNConfig("vit_tiny_patch16_224", channels=128, hidden=512),
}
