"""Options of multi-label classification. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges

AUGMENTS = ("none", "small", "small-strong", "photo", "photo-strong")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that finds the labels of images."""

    SCRATCH: ClassVar[Mapping[str, Any]] = {"updates": 32}
    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("imgsz", "balance"),
        "model": ("cache_features",),
        "augmentation": ("augment", "flip"),
    }

    imgsz: int | None = None
    """Side of the training and validation images in pixels; default: the model's own."""
    balance: Literal["none", "weights"] = "none"
    """Treatment of rare labels: none, or weights of their positive images (negatives / positives, at most 100)."""
    cache_features: bool = True
    """With a frozen backbone (freeze=backbone) and images that are not varied (augment=none), compute the features of
    each image once, and train the last layer on them."""
    augment: Literal["none", "small", "small-strong", "photo", "photo-strong"] = "photo"
    """Augmentation policy; small is for images up to 96 pixels."""
    flip: float | None = None
    """Probability of a horizontal flip; default: that of the policy."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("imgsz", 8), Range("flip", 0, 1, open_high=False)))
        check_choices(self, {"augment": AUGMENTS, "balance": ("none", "weights")})
        super().check()


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of finding the labels of images."""

    REQUEST: ClassVar = {"threshold": (0, 1)}

    threshold: float = 0.5
    """Probability from which an image has a label."""
    thresholds: Path | None = None
    """File of `vitrail evaluate --out`, whose best threshold of each label (by F1) is used; of val, not of test."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("threshold", 0, 1, open_low=True),))
        super().check()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a multi-label classifier."""

    threshold: float = 0.5
    """Probability from which an image has a label, for precision, recall and F1."""
    thresholds: Path | None = None
    """File of `vitrail evaluate --out` on val, whose best threshold of each label is used."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("threshold", 0, 1, open_low=True),))
        super().check()
