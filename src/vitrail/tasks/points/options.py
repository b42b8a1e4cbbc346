"""Options of classifying point clouds. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that classifies point clouds."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "points": ("points", "sampling"),
        "augmentation": ("rotation", "tilt", "scale", "shift", "jitter"),
        "optimisation": ("smoothing",),
    }
    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "pointnet", "epochs": 40, "batch": 32}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"model": "pointnet", "epochs": 15, "batch": 32}

    points: int | None = None
    """Number of points sampled from each cloud; default: the model's own."""
    sampling: Literal["uniform", "farthest"] | None = None
    """uniform draws points by area (or at random from clouds); farthest keeps the farthest of four times as many;
    default: the model's own."""
    rotation: float = 180.0
    """Greatest random rotation about the vertical axis, in degrees."""
    tilt: float = 0.0
    """Greatest random rotation about the two other axes, in degrees."""
    scale: float = 1.25
    """Greatest random factor of the size; the least is its inverse."""
    shift: float = 0.1
    """Greatest random shift along each axis, in radii of the cloud."""
    jitter: float = 0.01
    """Standard deviation of the noise added to each coordinate, cut at five of them."""
    smoothing: float = 0.1
    """Label smoothing, in [0, 1)."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, _RANGES)
        if self.sampling is not None:
            check_choices(self, {"sampling": ("uniform", "farthest")})
        super().check()


_RANGES = (
    Range("points", 1),
    Range("rotation", 0, 180, open_high=False),
    Range("tilt", 0, 180, open_high=False),
    Range("scale", 1),
    Range("shift", 0),
    Range("jitter", 0),
    Range("smoothing", 0, 1),
)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of naming the classes of point clouds."""

    FP32: ClassVar[str] = "Models of points"
    REQUEST: ClassVar = {"top": (1, 1000)}

    labels: Path | None = None
    """Text file with one class name per line, if the model has none or others are wanted."""
    top: int = 5
    """Number of classes in each prediction."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("top", 1),))
        super().check()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a classifier of point clouds."""

    FP32: ClassVar[str] = "Models of points"

    labels: Path | None = None
    """Text file with one class name per line, if the model has none or others are wanted."""
    worst: int = 12
    """Number of the worst errors to keep with their clouds."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("worst", 0),))
        super().check()
