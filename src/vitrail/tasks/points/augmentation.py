"""Random rotation, scale, shift and jitter of clouds: functions of the draws of a batch."""

import numpy as np
import torch
from torch import Tensor

from vitrail.data.stateless_rng import BatchRng
from vitrail.tasks.points.options import TrainOptions

_CUT = 5.0  # standard deviations of the jitter


def vary(points: Tensor, draws: BatchRng, options: TrainOptions) -> Tensor:
    """Return varied clouds `(B, N, 3)`: rotated about z, then tilted about x and y, scaled, shifted and jittered.

    Example:
        >>> cloud, options = torch.rand(1, 5, 3), TrainOptions(scale=1, shift=0, jitter=0)
        >>> moved = vary(cloud, BatchRng(0, 0, np.array([0])), options)
        >>> torch.allclose(moved.norm(dim=-1), cloud.norm(dim=-1)), torch.allclose(moved[..., 2], cloud[..., 2])
        (True, True)
    """
    bounds = (("turn", options.rotation, 2), ("tilt x", options.tilt, 0), ("tilt y", options.tilt, 1))
    matrices = np.eye(3)
    for purpose, most, axis in bounds:
        if most:
            matrices = matrices @ rotations(np.deg2rad(draws.uniform(purpose, -most, most)), axis)
    sizes = options.scale ** draws.uniform("scale", -1, 1)
    matrices = np.broadcast_to(matrices, (len(draws), 3, 3)) * sizes[:, None, None]
    shifts = draws.uniform("shift", -options.shift, options.shift, count=3)[:, None]
    found = points @ _like(matrices, points) + _like(shifts, points)
    if not options.jitter:
        return found
    noise = draws.normal("jitter", points.shape[1] * 3).reshape(points.shape).clip(-_CUT, _CUT)
    return found + options.jitter * _like(noise, points)


def rotations(angles: np.ndarray, axis: int) -> np.ndarray:
    """Return `(B, 3, 3)` rotations of row vectors about an axis.

    Example:
        >>> (np.array([[1.0, 0, 0]]) @ rotations(np.array([np.pi / 2]), 2)[0]).round(6).tolist()
        [[0.0, 1.0, 0.0]]
    """
    first, second = (axis + 1) % 3, (axis + 2) % 3
    found = np.zeros((len(angles), 3, 3))
    found[:, axis, axis] = 1
    found[:, first, first] = found[:, second, second] = np.cos(angles)
    found[:, first, second], found[:, second, first] = np.sin(angles), -np.sin(angles)
    return found


def _like(values: np.ndarray, points: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(points)
