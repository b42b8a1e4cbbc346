"""From a cloud or mesh to the points that a model reads."""

import numpy as np
import torch
from torch import Tensor

from vitrail.data.points.cloud import Cloud
from vitrail.data.points.surface import sample_points, unit_sphere
from vitrail.data.stateless_rng import BatchRng
from vitrail.kernels.points import farthest_points
from vitrail.point_sampling import PointSampling

_CANDIDATES = 4
"""Points drawn for each of the farthest ones that are kept."""


def sampled(cloud: Cloud, sampling: PointSampling, draws: BatchRng) -> Tensor:
    """Return points in the unit sphere, `(N, 3)`: a function of the cloud and the draws of one sample.

    Example:
        >>> cube = Cloud(np.random.default_rng(0).random((100, 3)))
        >>> sampled(cube, PointSampling(16), BatchRng(0, 0, np.array([0]))).norm(dim=1).max()
        tensor(1.)
    """
    return sampled_parts(cloud, sampling, draws)[0]


def sampled_parts(cloud: Cloud, sampling: PointSampling, draws: BatchRng) -> tuple[Tensor, Tensor | None]:
    """Return points in the unit sphere, `(N, 3)`, and the part of each, `(N,)`, or None."""
    if sampling.method == "uniform":
        points, parts = sample_points(cloud, sampling.points, draws)
        return torch.from_numpy(unit_sphere(points)), None if parts is None else torch.from_numpy(parts)
    points, parts = sample_points(cloud, _CANDIDATES * sampling.points, draws)
    found = torch.from_numpy(unit_sphere(points))
    chosen = farthest_points(found[None], sampling.points, 0)[0]
    kept = None if parts is None else torch.from_numpy(parts)[chosen]
    return torch.from_numpy(unit_sphere(found[chosen].double().numpy())), kept


def still(number: int) -> BatchRng:
    """Return the draws of a sample in evaluation: the same in every pass."""
    return BatchRng(0, 0, np.array([number]))
