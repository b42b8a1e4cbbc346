"""Result type: the part of each point of a cloud."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail.atomic_io import write_file
from vitrail.errors import DataError
from vitrail.tasks.points.drawing import draw_points


@dataclass(frozen=True)
class PointParts:
    """The parts of one cloud; or the reason why there are none.

    Args:
        path: file of the cloud, or its given name.
        names: names of the parts.
        points: the points that the model read, `(N, 3)` in the unit sphere.
        parts: part of each, `(N,)`.
        error: reason why the cloud could not be read; the other fields are then empty.
    """

    path: str
    names: tuple[str, ...] = ()
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)), repr=False, compare=False)
    parts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False, compare=False)
    error: str | None = None

    def shares(self) -> dict[str, float]:
        """Return the share of points in each part.

        Raises:
            DataError: the cloud could not be read.
        """
        if self.error is not None:
            raise DataError(f"{self.path} has no parts: {self.error}")
        counts = np.bincount(self.parts, minlength=len(self.names)) / len(self.parts)
        return dict(zip(self.names, counts.tolist(), strict=True))

    def cells(self) -> tuple[str, ...]:
        """Return the share of each part, for CSV."""
        return () if self.error else tuple(f"{share:.4f}" for share in self.shares().values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        shares = {name: round(share, 6) for name, share in self.shares().items()}
        return {"path": self.path, "points": len(self.points), "shares": shares}

    def draw(self, side: int = 480) -> Image.Image:
        """Return the cloud, each point with a circle in the colour of its part."""
        self.shares()
        chosen = [np.flatnonzero(self.parts == number).tolist() for number in range(len(self.names))]
        return draw_points(self.points, chosen, side)

    def save(self, folder: Path) -> list[Path]:
        """Write the points with their parts as `NAME.parts.csv`."""
        if self.error is not None:
            return []
        rows = [f"{x:.6f},{y:.6f},{z:.6f},{part}" for (x, y, z), part in zip(self.points, self.parts, strict=True)]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{Path(self.path).name}.parts.csv"
        write_file(path, ("\n".join(["x,y,z,part", *rows]) + "\n").encode())
        return [path]

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        return f"{self.path}: " + ", ".join(f"{name} {share:.1%}" for name, share in self.shares().items() if share)
