"""Farthest points as a loop of the program, which an exporter would unroll: 256 of them are thousands of operations."""

from functools import reduce

import torch
from torch import Tensor, nn

from vitrail.kernels.points.reference import at_least_fp32
from vitrail.parts.set_abstraction import SetAbstraction


def looped_farthest_points(points: Tensor, count: int) -> Tensor:
    """Return `kernels.points.farthest_points(points, count, 0)`; in a program it is one `while_loop`.

    Args:
        points: clouds `(B, N, D)`.
        count: number of points to choose, at most N.

    Returns:
        `(B, count)` indices in the order of choice.
    """
    points = at_least_fp32(points)
    places = torch.arange(count, device=points.device)

    def unfinished(step: Tensor, latest: Tensor, chosen: Tensor, distances: Tensor) -> Tensor:
        return step < count

    def choose(step: Tensor, latest: Tensor, chosen: Tensor, distances: Tensor) -> tuple[Tensor, ...]:
        centre = points.gather(1, latest[:, None, None].expand(-1, 1, points.shape[2]))
        squares = (points - centre).square().unbind(-1)  # added up axis after axis, as the kernel does
        distances = torch.minimum(distances, reduce(torch.add, squares))
        highest = distances == distances.max(dim=1, keepdim=True).values
        latest = highest.int().argmax(dim=1)  # the first of equal ones
        return step + 1, latest, torch.where(places == step, latest[:, None], chosen), distances

    first = points.new_zeros(points.shape[0], dtype=torch.int64)
    start = (
        torch.ones((), dtype=torch.int64, device=points.device),
        first,
        points.new_zeros(points.shape[0], count, dtype=torch.int64),
        points.new_full(points.shape[:2], torch.inf),
    )
    return torch.while_loop(unfinished, choose, start)[2]


class LoopedAbstraction(SetAbstraction):
    """A set abstraction whose farthest points are chosen in a loop of the program.

    Args:
        abstraction: the module that it replaces.
        shared: not used; forms of window attention share tables.
    """

    def __init__(self, abstraction: SetAbstraction, shared: object = None):
        nn.Module.__init__(self)
        self.points, self.radii, self.sizes = abstraction.points, abstraction.radii, abstraction.sizes
        self.scales, self.channels = abstraction.scales, abstraction.channels

    def choose(self, points: Tensor) -> Tensor:
        """Return the indices of the farthest points, `(B, M)`."""
        return looped_farthest_points(points, self.points)
