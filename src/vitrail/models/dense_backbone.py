"""Backbones of dense models by name, and the numbers that detectors share."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from vitrail.models import create_model
from vitrail.preprocess import Preprocess

AT_800 = Preprocess(800, crop=1.0, interpolation="bilinear")
AT_512 = Preprocess(512, crop=1.0, interpolation="bilinear")


def named_backbone(config: Any) -> nn.Module:
    """Build the backbone that a config names, for the channels and the size of its images.

    Args:
        config: has `backbone`, `backbone_config`, `in_channels` and `preprocess`.
    """
    own = {"num_classes": 0, "in_channels": config.in_channels, "image_size": config.preprocess.size}
    return create_model(config.backbone, **{**dict(config.backbone_config), **own}).backbone


@dataclass(frozen=True)
class DetectorConfig:
    """The numbers of a two-stage detector; `level_norm` is `none` or `layer`."""

    backbone: str
    backbone_config: tuple[tuple[str, object], ...] = ()
    level_norm: str = "layer"
    channels: int = 256
    hidden: int = 1024
    anchor_scale: float = 8.0
    num_classes: int = 80
    in_channels: int = 3
    preprocess: Preprocess = AT_512

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone_config", tuple(sorted(dict(self.backbone_config).items())))
