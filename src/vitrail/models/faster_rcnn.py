"""Faster R-CNN with a feature pyramid network, on any backbone.

"Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", Ren et al., 2015, on the pyramid of
"Feature Pyramid Networks for Object Detection", Lin et al., 2017, with torchvision's numbers. A plain ViT gets a simple
feature pyramid ("Exploring Plain Vision Transformer Backbones for Object Detection", Li et al., 2022).

Another backbone is named by `backbone`, its fields by `backbone_config`. Images are normalised as the backbone does.
"""

from dataclasses import dataclass
from typing import Any

from vitrail.models import create_model
from vitrail.parts.decoders.pyramid import NoLevelNorm, pyramid_maps
from vitrail.parts.detection.detector import Detector
from vitrail.parts.detection.head import DetectionHead
from vitrail.preprocess import Preprocess

AT_800 = Preprocess(800, crop=1.0, interpolation="bilinear")
AT_512 = Preprocess(512, crop=1.0, interpolation="bilinear")


@dataclass(frozen=True)
class FasterRCNNConfig:
    """The numbers of a Faster R-CNN; `level_norm` is `none` or `layer`."""

    backbone: str
    backbone_config: tuple[tuple[str, Any], ...] = ()
    level_norm: str = "layer"
    channels: int = 256
    hidden: int = 1024
    anchor_scale: float = 8.0
    num_classes: int = 80
    in_channels: int = 3
    preprocess: Preprocess = AT_512

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone_config", tuple(sorted(dict(self.backbone_config).items())))


def build(config: FasterRCNNConfig) -> Detector:
    """Assemble a Faster R-CNN from its numbers."""
    c, side = config, config.preprocess.size
    own = {**dict(c.backbone_config), "num_classes": 0, "in_channels": c.in_channels, "image_size": side}
    backbone = create_model(c.backbone, **own).backbone
    norm = {"norm": NoLevelNorm} if c.level_norm == "none" else {}
    maps = pyramid_maps(backbone, c.in_channels, side, **norm)
    return Detector(backbone, DetectionHead(maps, c.num_classes, c.channels, c.hidden, c.anchor_scale))


VARIANTS = {
    "faster_rcnn_resnet50": FasterRCNNConfig("resnet50", level_norm="none", num_classes=90, preprocess=AT_800),
    "faster_rcnn_swin_tiny": FasterRCNNConfig("swin_tiny_patch4_window7_224"),
    "faster_rcnn": FasterRCNNConfig("vit_tiny_patch16_224", channels=128, hidden=512),
}
