"""Set abstraction with multi-scale grouping: fewer points, each with features of its surroundings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.kernels.points import ball_query, farthest_points
from vitrail.kernels.points.grouping import gather_points, group_points
from vitrail.parts.shared_mlp import SharedMLP


class SetAbstraction(nn.Module):
    """Farthest points, the points within several radii of each, a shared MLP for each radius, and the maximum.

    "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", Qi et al., 2017, sections 3.2 and
    3.3 (MSG). The first farthest point is the first of the cloud.

    Args:
        points: number of farthest points.
        radii: of the balls.
        sizes: number of points in each ball.
        inputs: channels of the features without the three coordinates.
        widths: channels of the MLP of each radius.
    """

    def __init__(
        self,
        points: int,
        radii: Sequence[float],
        sizes: Sequence[int],
        inputs: int,
        widths: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.points, self.radii, self.sizes = points, tuple(radii), tuple(sizes)
        self.scales = nn.ModuleList(SharedMLP((3 + inputs, *each)) for each in widths)
        self.channels = sum(each[-1] for each in widths)

    def forward(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the chosen points `(B, M, 3)` and their features `(B, M, channels)`.

        Raises:
            VitrailError: the cloud has fewer points than are to be chosen.
        """
        if points.shape[1] < self.points:
            raise VitrailError(f"A cloud of {points.shape[1]} points is too small: {self.points} are chosen from it.")
        centres = gather_points(points, self.choose(points))
        balls, _ = ball_query(points, centres, self.radii, self.sizes)
        found = [
            scale(group_points(points, features, centres, ball)).amax(dim=2)  # (B, M, k, C) -> (B, M, C)
            for scale, ball in zip(self.scales, balls, strict=True)
        ]
        return centres, torch.cat(found, dim=-1)

    def choose(self, points: Tensor) -> Tensor:
        """Return the indices of the farthest points, `(B, M)`."""
        return farthest_points(points, self.points, 0)


def paired_abstractions(dim: int, centers: tuple[int, int], in_channels: int) -> tuple[SetAbstraction, SetAbstraction]:
    """Return the global branch of the Point Transformer: two abstractions, the second of `dim - 3` channels.

    Balls of 0.1, 0.2, 0.4 with 16, 32, 64 points, then of 0.2, 0.4, 0.6 with 32, 64, 128; widths are multiples of
    `dim / 16` ("Point Transformer", Engel et al., 2021, and the authors' code).

    Args:
        dim: channels C of the local-global attention; three of them are coordinates.
        centers: farthest points of each abstraction.
        in_channels: channels of the features without the coordinates.

    Example:
        >>> fine, coarse = paired_abstractions(64, (12, 8), in_channels=16)
        >>> fine.points, coarse.channels
        (12, 61)
    """
    w = dim // 16
    fine = ((w, w, 2 * w), (2 * w, 2 * w, 4 * w), (2 * w, 3 * w, 4 * w))
    coarse = ((w, 2 * w, 4 * w), (2 * w, 2 * w, 4 * w), (2 * w, 4 * w, dim - 8 * w - 3))
    return (
        SetAbstraction(centers[0], (0.1, 0.2, 0.4), (16, 32, 64), in_channels, fine),
        SetAbstraction(centers[1], (0.2, 0.4, 0.6), (32, 64, 128), 10 * w, coarse),
    )
