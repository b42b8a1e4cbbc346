"""PointNet for parts of shapes: each point with the vector of its whole cloud.

"PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", Qi et al., 2017, figure 2, segmentation
network:

| part | channels |
|---|---|
| features of a point | those of `pointnet` after the transform of features, 64 |
| features of the cloud | the maximum, 1024 |
| both, shared MLP | 1088, 512, 256, 128 |
| parts | 128, K |

The paper's network for ShapeNet parts (appendix C, figure 9) is another, wider one that
also reads the class of the shape.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.parts.point_model import PartModel
from vitrail.parts.point_transforms import TNet
from vitrail.parts.shared_mlp import SharedMLP, SharedMLPHead
from vitrail.point_sampling import PointSampling

AT_1024 = PointSampling(1024)


@dataclass(frozen=True)
class PointNetPartsConfig:
    """The numbers of a PointNet for parts; `num_classes` is the number of parts."""

    dim: int = 64
    global_dim: int = 1024
    penalty: float = 0.001
    in_channels: int = 3
    num_classes: int = 50
    sampling: PointSampling = AT_1024


class PointNetPointFeatures(nn.Module):
    """Points `(B, N, C)` to features of each point and its cloud, `(B, N, dim + global_dim)`.

    Args:
        transform: of the coordinates.
        first: shared MLP.
        feature_transform: of its outputs.
        last: shared MLP before the maximum.
    """

    def __init__(self, transform: nn.Module, first: nn.Module, feature_transform: nn.Module, last: nn.Module):
        super().__init__()
        self.transform, self.first = transform, first
        self.feature_transform, self.last = feature_transform, last

    def forward(self, points: Tensor) -> Tensor:
        """Return the features."""
        own = self.feature_transform(self.first(self.transform(points)))
        whole = self.last(own).amax(dim=1, keepdim=True)
        return torch.cat([own, whole.expand(-1, own.shape[1], -1)], dim=-1)


def build(config: PointNetPartsConfig) -> PartModel:
    """Assemble a PointNet for parts from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["pointnet_parts"])
        >>> sum(value.numel() for value in model.parameters())
        3542139
    """
    c = config
    widths = (c.dim, 2 * c.dim, c.global_dim), (c.global_dim // 2, c.global_dim // 4)
    backbone = PointNetPointFeatures(
        TNet(3, c.in_channels, widths),
        SharedMLP((c.in_channels, c.dim, c.dim)),
        TNet(c.dim, widths=widths, penalty=c.penalty),
        SharedMLP((c.dim, *widths[0])),
    )
    hidden = (c.global_dim // 2, c.global_dim // 4, c.global_dim // 8)
    return PartModel(backbone, SharedMLPHead((c.dim + c.global_dim, *hidden), c.num_classes, 0.0), c.in_channels)


VARIANTS = {"pointnet_parts": PointNetPartsConfig()}
