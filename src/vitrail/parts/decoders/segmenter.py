"""Semantic segmentation: a backbone, a decoder, and one score per class for each pixel."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.parts.backbone import Features, Model, ModelKind
from vitrail.parts.decoders.pyramid import PyramidMaps, SimplePyramidMaps
from vitrail.parts.decoders.resize import upsample_and_crop
from vitrail.preprocess import Preprocess
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
        if num_classes:
            nn.init.normal_(self.classifier.weight, std=0.01)
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
        self.maps, self.main, self.auxiliary = maps, main, auxiliary

    def forward(self, features: Features) -> Tensor:
        """Return scores `(B, K, h, w)`."""
        return self.main(self.maps(features))

    def both(self, features: Features) -> tuple[Tensor, Tensor | None]:
        """Return the scores, and those of the auxiliary classifier."""
        maps = self.maps(features)
        return self.main(maps), None if self.auxiliary is None else self.auxiliary(maps)


class Segmenter(Model):
    """A backbone and a head: images in, one score per class and pixel out, at any size.

    Args:
        backbone: `images -> Features`.
        head: `Features -> (B, K, h, w)`.

    Attributes:
        labels: class names, if known; kept in `metadata`.
        preprocess: side of the training crops, and normalisation.
    """

    kind: ClassVar[ModelKind] = ModelKind(
        "A semantic segmentation model",
        "image-segmentation",
        MappingProxyType({"miou": "mean_iou"}),
        MappingProxyType({"labels": "classes", "ignore": "class numbers that are not counted"}),
    )
    task: str = "segment"
    preprocess: Preprocess = Preprocess()

    def __init__(self, backbone: nn.Module, head: SegmentationHead):
        super().__init__(backbone, head)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names, or None."""
        return self.metadata.get("labels")

    @labels.setter
    def labels(self, names: Sequence[str] | None) -> None:
        self.metadata = {**self.metadata, "labels": None if names is None else tuple(names)}

    def plain_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return class names and the other values; raises if their number is not that of the classes."""
        labels, classes = metadata.get("labels"), getattr(self.config, "num_classes", None)
        if labels is not None and classes is not None and len(labels) != classes:
            raise VitrailError(f"Got {len(labels)} labels for a model of {classes} classes. Give one name per class.")
        return {**metadata, **({} if labels is None else {"labels": [str(label) for label in labels]})}

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid."""
        return self.backbone(images)

    def forward(self, images: Image) -> Tensor:
        """Return logits `(B, K, Y, X)`."""
        head: Any = self.head
        return upsample_and_crop(head(self.backbone(images)), head.maps.strides[0], images.shape[2:])

    def both(self, images: Image) -> tuple[Tensor, Tensor | None]:
        """Return the logits and those of the auxiliary classifier, each `(B, K, Y, X)`; for the loss."""
        head: Any = self.head
        size, strides = images.shape[2:], head.maps.strides
        scores, auxiliary = head.both(self.backbone(images))
        logits = upsample_and_crop(scores, strides[0], size)
        if auxiliary is None:
            return logits, None
        return logits, upsample_and_crop(auxiliary, strides[head.auxiliary.decoder.level], size)
