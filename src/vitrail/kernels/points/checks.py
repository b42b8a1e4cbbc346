"""Checks of the arguments of operations on points, the same for every backend."""

import torch
from torch import Tensor

from vitrail.errors import DataError, VitrailError
from vitrail.kernels.tracing import is_tracing


def check_points(points: Tensor, queries: Tensor | None = None) -> None:
    """Refuse clouds without points, of other shapes, or with coordinates that are no finite numbers.

    Args:
        points: `(B, N, D)`.
        queries: `(B, M, D)`, or None.

    Raises:
        VitrailError: the shapes do not fit.
        DataError: a coordinate is NaN or infinite; the message has its place.
    """
    for name, x in (("points", points), ("queries", queries)):
        if x is None:
            continue
        if x.ndim != 3 or not x.is_floating_point():
            raise VitrailError(f"{name} need floats (B, N, D), got {x.dtype} {tuple(x.shape)}.")
        if name == "points" and not x.shape[1]:
            raise VitrailError("A cloud needs at least one point, got none.")
        if queries is not None and (x.shape[0], x.shape[2]) != (points.shape[0], points.shape[2]):
            raise VitrailError(f"Clouds of {tuple(points.shape)} and queries of {tuple(x.shape)} do not fit.")
        if x.is_meta or is_tracing(x.detach()):  # no values to look at
            continue
        finite = torch.isfinite(x)
        if not bool(finite.all()):
            cloud, place, axis = (~finite).nonzero()[0].tolist()
            raise DataError(
                f"{name}[{cloud}, {place}] has {float(x[cloud, place, axis])} on axis {axis}; "
                "coordinates must be finite. Remove such points."
            )


def check_count(count: int, points: Tensor, what: str) -> None:
    """Refuse to choose less than one point, or more than there are."""
    if not 1 <= count <= points.shape[1]:
        raise VitrailError(f"Cannot choose {count} {what} from {points.shape[1]} points: 1 to that many are there.")


def check_balls(radii: tuple[float, ...], sizes: tuple[int, ...]) -> None:
    """Refuse radii without a size each, negative ones, and empty balls."""
    if not radii or len(radii) != len(sizes):
        raise VitrailError(f"Each radius needs a number of points, got {len(radii)} radii and {len(sizes)} numbers.")
    if not all(radius >= 0 for radius in radii) or min(sizes) < 1:
        raise VitrailError(f"Radii must be at least 0 and numbers of points at least 1, got {radii} and {sizes}.")
