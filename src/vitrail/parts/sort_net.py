"""SortNets: each learns a score of points, and keeps the best in the order of their scores."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.kernels.points import ball_query
from vitrail.kernels.points.grouping import gather_points
from vitrail.parts.shared_mlp import SharedMLP


class Picks(NamedTuple):
    """Points that a SortNet keeps: indices `(B, K)` and scores `(B, K)`, best first."""

    index: Tensor
    scores: Tensor


class SortNet(nn.Module):
    """Score each point by its features, and pick the K best, sorted.

    "Point Transformer", Engel et al., 2021, section III-B. The activation follows the score too, as in the authors'
    code. Of equal scores the first point is taken.

    Args:
        dim: channels of the features.
        picks: number K of points to keep.
        hidden: channels of the two hidden layers.
    """

    def __init__(self, dim: int, picks: int, hidden: tuple[int, int]):
        super().__init__()
        self.picks = picks
        self.score = SharedMLP((dim, *hidden, 1), nn.Mish)

    def forward(self, features: Tensor) -> Picks:
        """Pick points by their features `(B, N, C)`.

        Raises:
            VitrailError: there are fewer points than are to be picked.
        """
        scores = self.score(features)[..., 0]
        if scores.shape[1] < self.picks:
            raise VitrailError(f"A cloud of {scores.shape[1]} points is too small: a SortNet picks {self.picks}.")
        order = scores.sort(dim=1, descending=True, stable=True)
        return Picks(order.indices[:, : self.picks], order.values[:, : self.picks])


class LocalFeatures(nn.Module):
    """Features of the surroundings of the picks of several SortNets, in the order of the picks.

    f = [p, mlp(p, the points of a ball around p), score]

    "Point Transformer", section III-B and equation 6. The points of a ball are read in their order as one vector, as in
    the authors' code; the ball is filled as in `ball_query`. The SortNets do not share weights.

    Args:
        sort_nets: the SortNets.
        inputs: channels of a point.
        dim: channels C of a feature.
        radius: of the balls.
        size: number of points in a ball.
    """

    def __init__(self, sort_nets: list[SortNet], inputs: int, dim: int, radius: float, size: int):
        super().__init__()
        self.radius, self.size = radius, size
        self.sort_nets = nn.ModuleList(sort_nets)
        self.surroundings = SharedMLP(((size + 1) * inputs, dim // 4, dim // 2, dim - 1 - inputs), nn.Mish)

    def picks(self, features: Tensor) -> list[Picks]:
        """Return the picks of each SortNet."""
        return [sort_net(features) for sort_net in self.sort_nets]

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """Return `(B, M K, C)` from points `(B, N, inputs)` and what the SortNets read of them, `(B, N, dim)`."""
        picks = self.picks(features)
        chosen = gather_points(points, torch.cat([each.index for each in picks], dim=1))
        scores = torch.cat([each.scores for each in picks], dim=1)[..., None]
        (ball,), _ = ball_query(points[..., :3], chosen[..., :3], (self.radius,), (self.size,))
        around = torch.cat([chosen[:, :, None], gather_points(points, ball)], dim=2)  # (B, MK, 1 + k, inputs)
        return torch.cat([chosen, self.surroundings(around.flatten(2)), scores], dim=-1)
