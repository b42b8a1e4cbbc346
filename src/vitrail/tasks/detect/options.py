"""Options of detection. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that detects objects."""

    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "faster_rcnn_swin_tiny", "batch": 8}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"model": "faster_rcnn_swin_tiny", "batch": 8, "epochs": 30}
    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("imgsz",),
        "model": ("detector",),
        "augmentation": ("flip", "scale_min", "scale_max"),
    }

    imgsz: int | None = None
    """Longest side of the images in pixels, in training and validation; default: the model's own."""
    detector: Literal["faster_rcnn", "mask_rcnn"] = "faster_rcnn"
    """Detector on a backbone, if the model is one (vit_tiny_patch16_224) and no detector (faster_rcnn_swin_tiny)."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    scale_min: float = 0.7
    """Least factor of the random scale, relative to the image that fills the model's input."""
    scale_max: float = 1.4
    """Greatest factor of the random scale."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(
            self,
            (
                Range("imgsz", 32),
                Range("flip", 0, 1, open_high=False),
                Range("scale_min", 0, open_low=True),
                Range("scale_max", self.scale_min, hint="It must not be below scale_min."),
            ),
        )
        check_choices(self, {"detector": ("faster_rcnn", "mask_rcnn")})
        super().check()


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of detecting objects in images."""

    REQUEST: ClassVar = {"threshold": (0, 1)}

    threshold: float = 0.5
    """Least probability of a detection."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("threshold", 0, 1),))
        super().check()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a detector."""

    worst: int = 12
    """Number of the worst images to keep for the report."""
