"""Sampling of clouds: the inputs of a model of points, saved as `point_sampling.json`."""

import json
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

from vitrail.errors import DataError, VitrailError
from vitrail.inputs import ModelInputs

METHODS = ("uniform", "farthest")


@dataclass(frozen=True)
class PointSampling(ModelInputs):
    """A fixed number of points of each cloud or mesh, moved and scaled into the unit sphere.

    Args:
        points: number of points; a cloud with fewer repeats them in turn.
        method: `uniform` draws by area from meshes and at random from clouds; `farthest` draws four times as many, and
            keeps the farthest points of them.

    Example:
        >>> PointSampling.from_text(PointSampling(512).to_text())
        PointSampling(points=512, method='uniform')
    """

    file: ClassVar[str] = "point_sampling.json"

    points: int = 1024
    method: str = "uniform"

    def __post_init__(self) -> None:
        if self.points < 1 or self.method not in METHODS:
            raise VitrailError(
                f"Got {self.points} points by '{self.method}'; needs at least 1 by one of: {', '.join(METHODS)}."
            )

    def to_text(self) -> str:
        """Return the content of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the content of the file."""
        try:
            values = json.loads(text)
            return cls(points=int(values["points"]), method=str(values["method"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{cls.file} does not hold a sampling of points: {error}") from None

    def facts(self) -> dict[str, str]:
        """Return rows for the model card."""
        return {"points": f"{self.points:,} ({self.method}), in the unit sphere"}
