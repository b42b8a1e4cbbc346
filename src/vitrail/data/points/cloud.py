"""A point cloud or mesh in memory, and the error of one that cannot be used."""

from dataclasses import dataclass

import numpy as np

from vitrail.errors import DataError

MAX_POINTS = 20_000_000
"""The limit of points and of faces: files that declare more are refused from the header."""


class PointFileError(DataError):
    """A file of points that cannot be used.

    Args:
        name: the file, for display.
        reason: cause of the failure.
        kind: category: `missing`, `access`, `not a file`, `empty`, `format`, `size`, `truncated`, `broken`, `values`.
    """

    def __init__(self, name: str, reason: str, kind: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason, self.kind = name, reason, kind

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.reason, self.kind)


class Fault(Exception):
    """Reason and kind of a failure inside a parser, before the name of the file is added."""

    def __init__(self, reason: str, kind: str = "broken") -> None:
        super().__init__(reason)
        self.reason, self.kind = reason, kind


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points in space, maybe joined to triangles, maybe with the number of a part each.

    Args:
        points: `(n, 3)` of float64, finite.
        faces: `(m, 3)` indices of the corners of triangles; None for a cloud.
        parts: part of each face, or of each point of a cloud; None if there are none.

    Example:
        >>> Cloud(np.eye(3), np.array([[0, 1, 2]])).is_mesh
        True
    """

    points: np.ndarray
    faces: np.ndarray | None = None
    parts: np.ndarray | None = None

    @property
    def is_mesh(self) -> bool:
        """Whether there are triangles to sample."""
        return self.faces is not None and len(self.faces) > 0


def checked(cloud: Cloud) -> Cloud:
    """Return a cloud after the checks that every file needs.

    Raises:
        Fault: no points, too many, coordinates that are not finite, faces of points that do not exist.

    Example:
        >>> import numpy as np
        >>> checked(Cloud(np.zeros((4, 3)))).points.shape
        (4, 3)
    """
    points = cloud.points
    if points.ndim != 2 or points.shape[1] != 3:
        raise Fault(f"points need three coordinates each, got an array of shape {points.shape}", "format")
    if not len(points):
        raise Fault("the file has no points", "empty")
    check_size(len(points))
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        number = int(np.flatnonzero(~finite)[0])
        raise Fault(f"point {number} is {points[number].tolist()}; coordinates must be finite", "values")
    if cloud.faces is not None and len(cloud.faces):
        low, high = int(cloud.faces.min()), int(cloud.faces.max())
        if low < 0 or high >= len(points):
            raise Fault(f"a face names point {low if low < 0 else high} of {len(points)}", "broken")
    return cloud


def check_size(count: int, what: str = "points") -> None:
    """Refuse counts beyond the limit, before anything is allocated.

    Example:
        >>> check_size(1024) is None
        True
    """
    if not 0 <= count <= MAX_POINTS:
        raise Fault(f"declares {count:,} {what}; at most {MAX_POINTS:,} are read", "size")


def triangles(polygons: list[list[int]]) -> np.ndarray:
    """Cut polygons into triangles, as fans around their first corner.

    Example:
        >>> triangles([[0, 1, 2, 3]]).tolist()
        [[0, 1, 2], [0, 2, 3]]
    """
    found = [(face[0], face[i], face[i + 1]) for face in polygons for i in range(1, len(face) - 1)]
    return np.array(found, dtype=np.int64).reshape(-1, 3)
