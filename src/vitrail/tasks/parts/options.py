"""Options of finding the parts of point clouds. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vitrail.tasks import options
from vitrail.tasks.options import Range, check_ranges
from vitrail.tasks.points import options as points


@dataclass(frozen=True, kw_only=True)
class TrainOptions(points.TrainOptions):
    """Options of a training run that finds parts."""

    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "pointnet_parts", "epochs": 40, "batch": 16}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"model": "pointnet_parts", "epochs": 15, "batch": 16}


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of finding the parts of clouds."""

    FP32: ClassVar[str] = "Models of points"

    def check(self) -> None:
        """Check the values."""
        super().check()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a model of parts."""

    FP32: ClassVar[str] = "Models of points"

    worst: int = 12
    """Number of the clouds with the most wrong points to keep for the report."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("worst", 0),))
        super().check()
