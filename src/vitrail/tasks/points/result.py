"""Result type: the likeliest classes of a point cloud."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vitrail.tasks.classes.result import PAPER, ClassProbabilities, draw_class
from vitrail.tasks.points.drawing import draw_points


@dataclass(frozen=True)
class PointLabels(ClassProbabilities):
    """The likeliest classes of one cloud, best first; or the reason why there are none.

    Args:
        points: the points that the model read, `(N, 3)` in the unit sphere.
        picks: indices of the points that each SortNet picked, best first; of models without SortNets none.

    Example:
        >>> print(PointLabels("a.off", ("chair", "table"), (0.9, 0.1), (0, 1)))
        a.off: chair 90.0%, table 10.0%
    """

    points: np.ndarray | None = field(default=None, repr=False, compare=False)
    picks: tuple[tuple[int, ...], ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        found = super().to_dict()
        if self.error is None and self.points is not None:
            found["points"] = len(self.points)
        return found

    def draw(self, k: int = 3, width: int = 480) -> Image.Image:
        """Return the cloud above its `k` likeliest classes; picks of SortNets are circles of one colour each."""
        row, best = max(20, width // 15), self.top(k)
        points = np.zeros((0, 3)) if self.points is None else self.points
        sheet = Image.new("RGB", (width, width + row * len(best) + row // 2), PAPER)
        sheet.paste(draw_points(points, self.picks, width), (0, 0))
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=row * 0.5)
        for i, (label, probability) in enumerate(best):
            draw_class(pen, font, (row // 2, width + row // 4 + row * i, width - row // 2, row), label, probability)
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: class names are in the table."""
        return []
