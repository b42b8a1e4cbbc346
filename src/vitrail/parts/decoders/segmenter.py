"""Semantic segmentation: a backbone, a decoder, and one score per class for each pixel."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from vitrail.grid import may_be_nonzero
from vitrail.parts.backbone import Features
from vitrail.parts.decoders.pyramid import PyramidMaps, SimplePyramidMaps
from vitrail.parts.decoders.resize import upsample_and_crop
from vitrail.parts.model import ImageModel, ModelKind
from vitrail.shapes import Image


class PixelClassifier(nn.Module):
    """Dropout of channels, and a linear layer for each cell of a decoded pyramid.

    Args:
        decoder: list of maps to a map of `decoder.width` channels.
        num_classes: number of classes K.
        dropout: probability that a channel is dropped in training.
    """

    def __init__(self, decoder: nn.Module, num_classes: int, dropout: float = 0.0):
        super().__init__()
        width: Any = decoder.width
        self.decoder, self.dropout = decoder, nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1) if num_classes else nn.Identity()
        if isinstance(self.classifier, nn.Conv2d):
            nn.init.normal_(self.classifier.weight, std=0.01)
            assert self.classifier.bias is not None
            nn.init.zeros_(self.classifier.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return scores `(B, K, h, w)`."""
        return self.classifier(self.dropout(self.decoder(maps)))


class SegmentationHead(nn.Module):
    """Features in, scores at the finest level of the pyramid out.

    Args:
        maps: levels of the backbone.
        main: classifier of pixels.
        auxiliary: another one for an auxiliary loss; None for none.
    """

    def __init__(
        self, maps: PyramidMaps | SimplePyramidMaps, main: PixelClassifier, auxiliary: PixelClassifier | None = None
    ):
        super().__init__()
        self.maps: Any = maps  # an optimized model wraps them
        self.main, self.auxiliary = main, auxiliary

    def forward(self, features: Features) -> Tensor:
        """Return scores `(B, K, h, w)`."""
        return self.main(self.maps(features))

    def both(self, features: Features) -> tuple[Tensor, Tensor | None]:
        """Return the scores, and those of the auxiliary classifier."""
        maps = self.maps(features)
        return self.main(maps), None if self.auxiliary is None else self.auxiliary(maps)


class Segmenter(ImageModel):
    """A backbone and a head: images in, one score per class and pixel out, at any size.

    Images that are smaller than a cell of the coarsest level are padded with zeros, and the scores cropped.

    Args:
        backbone: `images -> Features`.
        head: `Features -> (B, K, h, w)`.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = MappingProxyType(
        {
            "segment": ModelKind(
                "A semantic segmentation model",
                "image-segmentation",
                MappingProxyType({"miou": "mean_iou"}),
                MappingProxyType({"labels": "classes", "ignore": "class numbers that are not counted"}),
                'vitrail.predict(model, "photo.jpg")[0].draw()',
            )
        }
    )
    task: str = "segment"

    def __init__(self, backbone: nn.Module, head: SegmentationHead):
        super().__init__()
        self.backbone, self.head = backbone, head

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid."""
        return self.backbone(images)

    def forward(self, images: Image) -> Tensor:
        """Return logits `(B, K, Y, X)`."""
        head: Any = self.head
        scores = head(self.backbone(self._enlarge(images)))
        return upsample_and_crop(scores, head.maps.strides[0], images.shape[2:])

    def both(self, images: Image) -> tuple[Tensor, Tensor | None]:
        """Return the logits and those of the auxiliary classifier, each `(B, K, Y, X)`; for the loss."""
        head: Any = self.head
        size, strides = images.shape[2:], head.maps.strides
        scores, auxiliary = head.both(self.backbone(self._enlarge(images)))
        logits = upsample_and_crop(scores, strides[0], size)
        if auxiliary is None:
            return logits, None
        return logits, upsample_and_crop(auxiliary, strides[head.auxiliary.decoder.level], size)

    def _enlarge(self, images: Image) -> Tensor:
        """Pad images that are smaller than a cell of the coarsest level, at the right and bottom, with zeros."""
        head: Any = self.head
        down, right = (max(head.maps.strides[-1] - side, 0) for side in images.shape[2:])
        return nn.functional.pad(images, (0, right, 0, down)) if may_be_nonzero(down, right) else images
