"""Heads of dense models in optimized models: native convolutions on channels-last maps, in fp32."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.fused.banded_head import in_bands
from vitrail.fused.map_convolution import (
    fuse_doubling,
    fuse_map_conv,
    fuse_residual_stage,
    fuse_unit,
)
from vitrail.fused.map_decoders import FusedMLPDecoder, FusedUperNet
from vitrail.fused.unsupported import NotConverted, require_libraries
from vitrail.fused.walker import replace_modules
from vitrail.parts.backbone import Features
from vitrail.parts.decoders.conv_norm_act import ConvNormAct
from vitrail.parts.decoders.light import MLPDecoder
from vitrail.parts.decoders.pyramid import PyramidMaps, SimplePyramidMaps
from vitrail.parts.decoders.segmenter import Segmenter
from vitrail.parts.decoders.upernet import UperNetDecoder
from vitrail.parts.detection.detector import Detector
from vitrail.parts.embeddings import Embedding
from vitrail.parts.model import Model
from vitrail.parts.residual_stage import ResidualStage
from vitrail.parts.restorer import MapTokens, Restorer

MAP_MODULES: Mapping[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Conv2d: fuse_map_conv,
    nn.ConvTranspose2d: fuse_doubling,
    ConvNormAct: fuse_unit,
    UperNetDecoder: FusedUperNet,
    MLPDecoder: FusedMLPDecoder,
}
"""Fused module of each part of a dense head of exactly this type."""

OUTSIDE_OF_GROUPS = {**MAP_MODULES, ResidualStage: fuse_residual_stage}
"""The same for a restorer, with its residual groups."""


class Fp32Maps(nn.Module):
    """Maps of a pyramid that the backbone returns in its residual dtype.

    Args:
        maps: `Features -> maps`, in fp32.
    """

    def __init__(self, maps: PyramidMaps):
        super().__init__()
        self.maps, self.channels, self.strides = maps, maps.channels, maps.strides

    def forward(self, features: Features) -> list[Tensor]:
        """Cast the features and return the maps."""
        pyramid = tuple(level.float() for level in features.pyramid)
        return self.maps(features._replace(tokens=features.tokens.float(), pyramid=pyramid))


class PlanarScores(nn.Module):
    """Scores of classes with each class contiguous: they are enlarged next, two to three times sooner in this layout.

    Args:
        classifier: the last layer, `(B, C, h, w) -> (B, K, h, w)`.
    """

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, cells: Tensor) -> Tensor:
        """Classify, and copy into planes."""
        return self.classifier(cells).contiguous()


def fuse_maps(model: Model, dtype: torch.dtype, unconverted: Counter[str]) -> None:
    """Replace the convolutions outside of the backbone, and those of residual groups; count those that stay.

    The auxiliary head of a segmenter stays: inference never calls it.

    Args:
        model: a segmenter, detector or restorer; nothing is done to others.
        dtype: compute dtype of the backbone, and of the box head of a detector.
        unconverted: counts the modules that are not converted, by reason.
    """
    if isinstance(model, Segmenter):
        maps: Any = model.head.maps
        main: Any = model.head.main
        _convert_below([maps, main], MAP_MODULES, unconverted)
        main.classifier = PlanarScores(main.classifier)
    if isinstance(model, Detector):
        from vitrail.fused.detection_head import detector_modules, detector_parts  # loads torchvision's detection

        _convert_below(detector_parts(model.head), {**MAP_MODULES, **detector_modules(dtype)}, unconverted)
    if isinstance(model, Restorer):
        _convert_below([model], OUTSIDE_OF_GROUPS, unconverted)
        model.head = in_bands(model.head, model.scale)


def _convert_below(
    parents: list[nn.Module], known: Mapping[type[nn.Module], Callable[..., nn.Module]], unconverted: Counter[str]
) -> None:
    def convert(module: nn.Module) -> nn.Module | None:
        if isinstance(module, Embedding | MapTokens):
            return module
        make = known.get(type(module))
        if make is None:
            return None
        try:
            require_libraries("winograd")
            fused = make(module)
        except NotConverted as reason:
            unconverted[f"{type(module).__name__}: {reason}"] += 1
            return module if type(module) is ResidualStage else None
        replace_modules(fused, convert)
        return fused

    for parent in parents:
        replace_modules(parent, convert)


def read_in_fp32(head: nn.Module) -> None:
    """Cast the pyramid that a head of maps reads; other heads stay."""
    if isinstance(getattr(head, "maps", None), PyramidMaps | SimplePyramidMaps):
        head.maps = Fp32Maps(head.maps)  # pyright: ignore[reportArgumentType]
