"""The program of a model of point clouds."""

import torch
from torch import Tensor

from vitrail.parts.model import Model
from vitrail.tasks.program import NamedAxis, ProgramSpec, Sizes, TensorSpec


def point_program(model: Model, output: TensorSpec) -> ProgramSpec:
    """Return the program of a model of clouds `(B, N, 3)` in the unit sphere.

    Args:
        model: its `sampling` states the number of points.
        output: logits of a cloud or of each point.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("pointnet", dim=8, global_dim=8, num_classes=3)
        >>> point_program(model, TensorSpec("logits", ("batch", 3), classes=1)).inputs[0].shape
        ('batch', 'points', 3)
    """
    own = model.sampling.points
    tried = tuple(max(own + step, 8) for step in (0, 0, 13, -9, 40, 1, 77, 22))
    axis = NamedAxis("points", own, own + 96, (own, tried[2]), tried)
    shape = TensorSpec("points", ("batch", "points", model.in_channels))

    def draw(sizes: Sizes, generator: torch.Generator) -> tuple[Tensor, ...]:
        points = torch.randn(shape.dims(sizes), generator=generator)
        return (points / points.norm(dim=2).amax(1)[:, None, None],)

    return ProgramSpec(model, (shape,), (output,), (axis,), draw)
