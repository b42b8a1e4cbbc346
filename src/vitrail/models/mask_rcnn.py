"""Mask R-CNN: boxes and instance masks on the pyramid of any backbone.

"Mask R-CNN", He et al., 2017: Faster R-CNN (see `faster_rcnn`) and a mask head, with torchvision's numbers.

Another backbone is named by `backbone`, its fields by `backbone_config`. Images are normalised as the backbone does.
"""

from dataclasses import dataclass
from typing import Any

from vitrail.models import create_model
from vitrail.parts.decoders.pyramid import NoLevelNorm, pyramid_maps
from vitrail.parts.detection.detector import Detector
from vitrail.parts.detection.head import DetectionHead, mask_parts
from vitrail.preprocess import Preprocess

AT_800 = Preprocess(800, crop=1.0, interpolation="bilinear")
AT_512 = Preprocess(512, crop=1.0, interpolation="bilinear")


@dataclass(frozen=True)
class MaskRCNNConfig:
    """The numbers of a Mask R-CNN; `level_norm` is `none` or `layer`."""

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


def build(config: MaskRCNNConfig) -> Detector:
    """Assemble a Mask R-CNN from its numbers."""
    c, side = config, config.preprocess.size
    own = {**dict(c.backbone_config), "num_classes": 0, "in_channels": c.in_channels, "image_size": side}
    backbone = create_model(c.backbone, **own).backbone
    norm = {"norm": NoLevelNorm} if c.level_norm == "none" else {}
    maps = pyramid_maps(backbone, c.in_channels, side, **norm)
    masks = mask_parts(len(maps.channels), c.num_classes, c.channels)
    return Detector(backbone, DetectionHead(maps, c.num_classes, c.channels, c.hidden, c.anchor_scale, masks))


VARIANTS = {
    "mask_rcnn_resnet50": MaskRCNNConfig("resnet50", level_norm="none", num_classes=90, preprocess=AT_800),
    "mask_rcnn_swin_tiny": MaskRCNNConfig("swin_tiny_patch4_window7_224"),
    "mask_rcnn": MaskRCNNConfig("vit_tiny_patch16_224", channels=128, hidden=512),
}
