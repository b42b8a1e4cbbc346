"""PointNet: the same network at every point, and the maximum over points.

"PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", Qi et al., 2017, figure 2 and
appendix C:

| part | channels |
|---|---|
| T-net of the coordinates | 64, 128, 1024, max, 512, 256, 3 x 3 |
| shared MLP | 64, 64 |
| T-net of the features | 64, 128, 1024, max, 512, 256, 64 x 64, penalty 0.001 |
| shared MLP, maximum | 64, 128, 1024 |
| classes | 512, 256, K; dropout 0.3 |

Every layer but the last has BatchNorm and ReLU. The maximum does not depend on the order of the points.
`pointnet_vanilla` has no T-nets (the paper's table 5).
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from vitrail.parts.point_model import PointModel
from vitrail.parts.point_transforms import TNet
from vitrail.parts.shared_mlp import SharedMLP, SharedMLPHead
from vitrail.point_sampling import PointSampling

AT_1024 = PointSampling(1024)


@dataclass(frozen=True)
class PointNetConfig:
    """The numbers of a PointNet; `dim` is the width of the first layers, `global_dim` that of the maximum."""

    dim: int = 64
    global_dim: int = 1024
    transforms: bool = True
    penalty: float = 0.001
    dropout: float = 0.3
    in_channels: int = 3
    num_classes: int = 40
    sampling: PointSampling = AT_1024


class PointNetBackbone(nn.Module):
    """Points `(B, N, C)` to one vector a cloud.

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
        """Return the maximum over points, `(B, global_dim)`."""
        return self.last(self.feature_transform(self.first(self.transform(points)))).amax(dim=1)


def build(config: PointNetConfig) -> PointModel:
    """Assemble a PointNet from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["pointnet"])
        >>> sum(value.numel() for value in model.parameters())
        3480049
    """
    c = config
    widths = (c.dim, 2 * c.dim, c.global_dim), (c.global_dim // 2, c.global_dim // 4)
    backbone = PointNetBackbone(
        TNet(3, c.in_channels, widths) if c.transforms else nn.Identity(),
        SharedMLP((c.in_channels, c.dim, c.dim)),
        TNet(c.dim, widths=widths, penalty=c.penalty) if c.transforms else nn.Identity(),
        SharedMLP((c.dim, *widths[0])),
    )
    head = SharedMLPHead((c.global_dim, *widths[1]), c.num_classes, c.dropout)
    return PointModel(backbone, head, c.in_channels)


POINTNET = PointNetConfig()
VARIANTS = {
    "pointnet": POINTNET,
    "pointnet_vanilla": replace(POINTNET, transforms=False),
}
