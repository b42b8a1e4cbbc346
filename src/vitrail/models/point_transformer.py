"""Point Transformer (Engel et al.): sorted local features attend to global ones.

"Point Transformer", Engel, Belagiannis and Dietmayer, IEEE Access 2021 (not the later network of the same name),
section III, and the authors' code for ModelNet40, C = 512:

| branch | layers |
|---|---|
| features | shared MLP C/8, C/4; encoder block of 8 heads |
| local | 4 SortNets that keep 64 points each; balls of radius 0.1 with 16 points |
| global | set abstraction: 256 points in balls of 0.1, 0.2, 0.4, then 128 in 0.2, 0.4, 0.6; encoder block |
| local-global | two decoder blocks: local features read global ones; the last one projects to C/8 |
| classes | all local features in their order: C, C/4, K |

The order of the local features is learned, so the output does not depend on the order of the points: clouds are put in
lexicographic order first, which fixes the start of the farthest points and the order inside balls. Activations are
Mish; the set abstraction has ReLU. The authors' figures are with normals (`in_channels=6`).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from vitrail.parts.local_global import LocalGlobalAttention, encoder_block, local_global_attention
from vitrail.parts.point_model import PointModel, canonical_order
from vitrail.parts.set_abstraction import SetAbstraction, paired_abstractions
from vitrail.parts.shared_mlp import SharedMLP, SharedMLPHead
from vitrail.parts.sort_net import LocalFeatures, Picks, SortNet
from vitrail.point_sampling import PointSampling

AT_1024 = PointSampling(1024)


@dataclass(frozen=True)
class PointTransformerConfig:
    """The numbers of a Point Transformer; `centers` are the farthest points of the two set abstractions."""

    dim: int = 512
    num_heads: int = 8
    sort_nets: int = 4
    picks: int = 64
    centers: tuple[int, int] = (256, 128)
    radius: float = 0.1
    ball_size: int = 16
    dropout: float = 0.4
    in_channels: int = 3
    num_classes: int = 40
    sampling: PointSampling = AT_1024


class PointTransformerBackbone(nn.Module):
    """Points `(B, N, C)` to one vector a cloud: its local features, sorted.

    Args:
        embedding: shared MLP of the points.
        block: encoder block, whose outputs the SortNets read.
        local: SortNets and the surroundings of their picks.
        fine: first set abstraction.
        coarse: second one.
        attention: local-global attention.
    """

    def __init__(
        self,
        embedding: nn.Module,
        block: nn.Module,
        local: LocalFeatures,
        fine: SetAbstraction,
        coarse: SetAbstraction,
        attention: LocalGlobalAttention,
    ):
        super().__init__()
        self.embedding, self.block, self.local = embedding, block, local
        self.fine, self.coarse, self.attention = fine, coarse, attention

    def forward(self, points: Tensor) -> Tensor:
        """Return `(B, M K C/8)`."""
        points = canonical_order(points)
        centres, around = self.coarse(*self.fine(points[..., :3], points[..., 3:]))
        local = self.local(points, self.point_features(points))
        return self.attention(local, centres, around).flatten(1)

    def point_features(self, points: Tensor) -> Tensor:
        """Return the features that the SortNets score, `(B, N, C/4)`."""
        return self.block(self.embedding(points))

    def picks(self, points: Tensor) -> tuple[Tensor, list[Picks]]:
        """Return the points in the order that the indices of the picks refer to, and the picks of each SortNet."""
        points = canonical_order(points)
        return points, self.local.picks(self.point_features(points))


def build(config: PointTransformerConfig) -> PointModel:
    """Assemble a Point Transformer from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["point_transformer_engel"])
        >>> sum(value.numel() for value in model.parameters())
        17461087
    """
    c, w = config, config.dim // 16
    sort_nets = [SortNet(c.dim // 4, c.picks, (c.dim // 8, w // 2)) for _ in range(c.sort_nets)]
    backbone = PointTransformerBackbone(
        SharedMLP((c.in_channels, c.dim // 8, c.dim // 4), nn.Mish),
        encoder_block(c.dim // 4, c.num_heads, hidden=4 * c.dim),
        LocalFeatures(sort_nets, c.in_channels, c.dim, c.radius, c.ball_size),
        *paired_abstractions(c.dim, c.centers, c.in_channels - 3),
        local_global_attention(c.dim, c.num_heads, (c.dim, c.dim // 2), c.dim // 8),
    )
    widths = (c.sort_nets * c.picks * c.dim // 8, c.dim, c.dim // 4)
    return PointModel(backbone, SharedMLPHead(widths, c.num_classes, c.dropout, nn.Mish), c.in_channels)


VARIANTS = {"point_transformer_engel": PointTransformerConfig()}
