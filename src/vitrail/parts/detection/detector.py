"""A detector: backbone and detection head; images in, boxes out, or losses while it is trained."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from vitrail.parts.detection.boxes import Boxes, Targets
from vitrail.parts.model import ImageModel, ModelKind
from vitrail.shapes import Image


class Detector(ImageModel):
    """Backbone and detection head.

    "Mask R-CNN", He et al., 2017; "Feature Pyramid Networks for Object Detection", Lin et al., 2017. While it is
    trained, batch normalisation of the backbone keeps its statistics, as in both papers: batches are too small for it.

    Args:
        backbone: `images -> Features`.
        head: `DetectionHead`, proposals, boxes and masks from the backbone's pyramid.

    Attributes:
        labels: class names, if known; kept in `metadata`.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = MappingProxyType(
        {
            "detect": ModelKind(
                "An object detector",
                "object-detection",
                MappingProxyType({"map": "mean average precision", "map50": "AP50"}),
                MappingProxyType({"labels": "classes"}),
                "model(images)[0].boxes",
            )
        }
    )
    task: str = "detect"
    head: Any  # `DetectionHead`, whose import takes time

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(
        self, images: Image, sizes: Sequence[tuple[int, int]] | None = None, targets: Targets | None = None
    ) -> Any:
        """Return one `Boxes` per image; with targets the losses by name, and in evaluation mode both as a pair.

        Args:
            images: `(B, C, Y, X)`, padded at the end to one size.
            sizes: rows and columns of each image without its padding; all of it by default.
            targets: boxes and classes that the losses are computed for.
        """
        shape = (int(images.shape[2]), int(images.shape[3]))
        own = [shape] * len(images) if sizes is None else [(int(y), int(x)) for y, x in sizes]
        features = self.backbone(images)
        if targets is None:
            return self.head(features, shape, own)
        losses = self.head.losses(features, shape, own, targets)
        return losses if self.training else (losses, self.head(features, shape, own))

    def dense(self, images: Image) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness and offsets of all anchors: the part of the cost that does not depend on the objects."""
        return self.head.rpn.head(list(self.head.levels(self.backbone(images)).values()))

    def train(self, mode: bool = True) -> "Detector":
        """Set the training mode; batch normalisation of the backbone stays in evaluation mode."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the losses, in fp32.

    Example:
        >>> import torch
        >>> total({"boxes": torch.tensor(1.0), "classes": torch.tensor(2.5)})
        tensor(3.5000)
    """
    return sum((loss.float() for loss in losses.values()), start=next(iter(losses.values())).new_zeros(()).float())


__all__ = ["Boxes", "Detector", "total"]
