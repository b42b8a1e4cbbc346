"""Backbone: embedding, stages, norm; the image classifier, which adds a head."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.model import ImageModel, ModelKind
from vitrail.shapes import Image


class Features(NamedTuple):
    """Output of a backbone, in one layout for every architecture.

    Args:
        tokens: `(B, N, C)`, normalised, prefix tokens first.
        grid: layout of the tokens, a `Grid` for images and a `TokenSequence` for text.
        pyramid: one `(B, H, W, C)` map a stage, finest first, as the stage left it (not normalised).
    """

    tokens: Tensor
    grid: Any
    pyramid: tuple[Tensor, ...]


class Backbone(nn.Module):
    """Images in, features out.

    Args:
        embedding: `images -> (x, grid)`.
        stages: each `(x, grid) -> (x, grid)`.
        norm: after the last stage, `x -> x`.
    """

    def __init__(self, embedding: nn.Module, stages: Iterable[nn.Module], norm: nn.Module):
        super().__init__()
        self.embedding = embedding
        self.stages = nn.ModuleList(stages)
        self.norm = norm

    def forward(self, images: Image) -> Features:
        """Embed, pass the stages, normalise."""
        x, grid = self.embedding(images)
        pyramid = []
        for stage in self.stages:
            x, grid = stage(x, grid)
            pyramid.append(grid.cells(x))
        return Features(self.norm(x), grid, tuple(pyramid))

    def last_tokens(self, images: Image) -> tuple[Tensor, Grid]:
        """Return tokens and grid of `forward`, without keeping the outputs of the stages before."""
        x, grid = self.embedding(images)
        for stage in self.stages:
            x, grid = stage(x, grid)
        return self.norm(x), grid


class Classifier(ImageModel):
    """A backbone and a head: images in, one score per class out.

    Args:
        backbone: `images -> Features`.
        head: `Features -> (B, K)`.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = {
        "classify": ModelKind(
            "An image classifier",
            "image-classification",
            MappingProxyType({"top1": "accuracy", "top-1": "accuracy"}),
            MappingProxyType({"labels": "classes"}),
            'print(vitrail.predict(model, "image.jpg"))',
        ),
        "multilabel": ModelKind(
            "A classifier of images with several labels",
            "image-classification",
            titles=MappingProxyType({"labels": "labels"}),
            example='print(vitrail.predict(model, "image.jpg"))',
        ),
    }
    task: str = "classify"

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def plain_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the number of classes, their names, and the rest of the metadata."""
        plain = super().plain_metadata(metadata)
        labels = plain.pop("labels", None)
        classes = getattr(self.config, "num_classes", None)
        return {"num_classes": classes, "labels": labels} | {k: v for k, v in plain.items() if k != "num_classes"}

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid."""
        return self.backbone(images)

    def forward(self, images: Image) -> Tensor:
        """Return logits `(B, K)`."""
        return self.head(self.backbone(images))
