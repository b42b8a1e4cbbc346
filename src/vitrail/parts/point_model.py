"""The interface of models of point clouds: points in, logits out."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.parts.model import Model, ModelKind, ModelLayer
from vitrail.point_sampling import PointSampling


class PointModel(Model):
    """A model of clouds `(B, N, C)`: coordinates first, then other channels such as normals.

    Args:
        backbone: `(B, N, C) -> features`; its children are its layers, in order.
        head: `features -> logits`.
        in_channels: channels C of a point.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = {
        "points": ModelKind(
            "A classifier of point clouds",
            metric_names={"top1": "accuracy"},
            titles={"labels": "classes"},
            example="model.labels[model(points).argmax(-1)]  # points (1, N, 3) in the unit sphere",
        )
    }
    task: str = "points"
    inputs: PointSampling | None = None

    def __init__(self, backbone: nn.Module, head: nn.Module, in_channels: int):
        super().__init__()
        self.backbone, self.head, self.in_channels = backbone, head, in_channels

    @property
    def sampling(self) -> PointSampling:
        """Sampling of clouds for this model."""
        return self.inputs or PointSampling()

    def layers(self) -> list[ModelLayer]:
        """List the children of the backbone in order, and last the head."""
        order = [ModelLayer(number, [child]) for number, child in enumerate(self.backbone.children())]
        return [*order, ModelLayer(len(order), [self.head])]

    def features(self, points: Tensor) -> Tensor:
        """Return the features that the head reads.

        Raises:
            VitrailError: the shape is not `(B, N, in_channels)`, or there are no points.
        """
        if points.ndim != 3 or points.shape[-1] != self.in_channels or not points.shape[1]:
            raise VitrailError(f"Clouds need the shape (B, N, {self.in_channels}), got {tuple(points.shape)}.")
        return self.backbone(points)

    def forward(self, points: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        return self.head(self.features(points))


class PartModel(PointModel):
    """A model that names the part that each point of a cloud belongs to: logits `(B, N, K)`."""

    kinds: ClassVar[Mapping[str, ModelKind]] = {
        "parts": ModelKind(
            "A model that finds the parts of point clouds",
            metric_names={"miou": "mean_iou"},
            titles={"labels": "parts"},
            example="model(points).argmax(-1)  # points (1, N, 3) in the unit sphere",
        )
    }
    task: str = "parts"


def canonical_order(points: Tensor) -> Tensor:
    """Return the points of each cloud in lexicographic order of their channels: the same for every permutation.

    Equal points are equal in all channels, so their order does not matter.

    Example:
        >>> import torch
        >>> canonical_order(torch.tensor([[[1.0, 2.0], [0.0, 9.0], [1.0, 0.0]]])).tolist()
        [[[0.0, 9.0], [1.0, 0.0], [1.0, 2.0]]]
    """
    return points.gather(1, canonical_places(points)[..., None].expand_as(points))


def canonical_places(points: Tensor) -> Tensor:
    """Return the places `(B, N)` of the points in lexicographic order of their channels.

    Example:
        >>> import torch
        >>> canonical_places(torch.tensor([[[1.0, 2.0], [0.0, 9.0], [1.0, 0.0]]])).tolist()
        [[1, 2, 0]]
    """
    places = torch.arange(points.shape[1], device=points.device).expand(points.shape[:2])
    for channel in reversed(range(points.shape[-1])):
        values = points[..., channel].gather(1, places)
        places = places.gather(1, values.sort(dim=1, stable=True).indices)
    return places
