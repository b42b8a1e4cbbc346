"""Options of classification. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vitrail.errors import VitrailError, unknown
from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges

VIEWS = ("flip", "vflip", "rotate", "crops")
"""Views of test-time augmentation."""

AUGMENTS = ("auto", "none", "digits", "small", "small-strong", "photo", "photo-strong")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that classifies images."""

    SCRATCH: ClassVar[Mapping[str, Any]] = {"updates": 32}
    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("imgsz", "image_column", "label_column", "split_column", "fold_column", "balance"),
        "model": ("cache_features",),
        "augmentation": ("mixup", "cutmix", "augment", "randaugment", "erasing", "flip", "crop_min"),
        "optimisation": ("smoothing",),
        "distillation": (
            "teacher",
            "distill",
            "distill_alpha",
            "distill_temperature",
            "distill_features",
            "distill_depth",
            "distill_attention",
            "distill_relations",
        ),
    }

    imgsz: int | None = None
    """Side of the training and validation images in pixels; default: the model's own."""

    image_column: str | None = None
    """Column of a table that holds the path of the image; common names are found by default."""
    label_column: str | None = None
    """Column of a table that holds the class."""
    split_column: str | None = None
    """Column of a table that holds train, val or test."""
    fold_column: str | None = None
    """Column of a table that holds the fold of cross-validation, for --folds; images of a patient may share one."""
    balance: Literal["none", "weights", "sampling"] = "none"
    """Treatment of uneven classes: none, weights of the loss (N / K n_k), or sampling all classes equally often."""

    cache_features: bool = True
    """With a frozen backbone (freeze=backbone) and images that are not varied (augment=none), compute the features of
    each image once, and train the last layer on them."""

    smoothing: float = 0.1
    """Label smoothing, in [0, 1)."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0 is off. If both are on, each batch takes one of them."""
    augment: Literal["auto", "none", "digits", "small", "small-strong", "photo", "photo-strong"] = "auto"
    """Augmentation policy; auto takes digits, small (images up to 96 pixels) or photo by the data."""
    randaugment: int | None = None
    """Magnitude of RandAugment, 0 (off) to 30; default: that of `augment`."""
    erasing: float | None = None
    """Probability of random erasing; default: that of `augment`."""
    flip: float | None = None
    """Probability of a horizontal flip; default: that of `augment`. 0 if left and right differ in meaning."""
    crop_min: float | None = None
    """Least share of the image that a random crop keeps; default: that of `augment`."""

    teacher: str | None = None
    """Model folder of a teacher to distil from (DeiT)."""
    distill: Literal["hard", "soft"] = "hard"
    """Learn the teacher's decision (hard) or its softened distribution (soft)."""
    distill_alpha: float = 0.5
    """Weight of the teacher's logits in the loss; 0 allows a teacher of other classes."""
    distill_temperature: float = 3.0
    """Temperature of soft distillation."""
    distill_features: float = 0.0
    """Weight of the teacher's features, reached by a learned map (FitNets); 0 is off."""
    distill_depth: float = 1.0
    """Share of the blocks after which features are compared, in (0, 1]."""
    distill_attention: float = 0.0
    """Weight of the teacher's last attention maps (MiniLM); 0 is off."""
    distill_relations: float = 0.0
    """Weight of the relations of values in the teacher's last attention (MiniLM); 0 is off."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, _RANGES)
        choices = {"augment": AUGMENTS, "distill": ("hard", "soft"), "balance": ("none", "weights", "sampling")}
        check_choices(self, choices)
        if self.imitates and self.teacher is None:
            raise VitrailError("distill_features, distill_attention and distill_relations need a --teacher.")
        super().check()

    @property
    def imitates(self) -> bool:
        """Whether layers of a teacher are imitated, besides its logits."""
        return max(self.distill_features, self.distill_attention, self.distill_relations) > 0


_RANGES = (
    Range("imgsz", 1),
    Range("smoothing", 0, 1),
    Range("mixup", 0),
    Range("cutmix", 0),
    Range("randaugment", 0, 30, open_high=False),
    Range("erasing", 0, 1, open_high=False),
    Range("flip", 0, 1, open_high=False),
    Range("crop_min", 0, 1, open_low=True, open_high=False),
    Range("distill_alpha", 0, 1, open_high=False),
    Range("distill_temperature", 0, open_low=True),
    Range("distill_features", 0),
    Range("distill_depth", 0, 1, open_low=True, open_high=False),
    Range("distill_attention", 0),
    Range("distill_relations", 0),
)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of naming the classes of images."""

    REQUEST: ClassVar = {"top": (1, 1000)}

    labels: Path | None = None
    """Text file with one class name per line, if the model has none or others are wanted."""
    top: int = 5
    """Number of classes in each prediction."""
    draft: bool = False
    """Decode large JPEGs at a smaller scale, at least three times the size needed: faster, but 1 to 11 of 100
    predictions change."""
    tta: str = ""
    """Test-time augmentation: mean of the probabilities over views, such as flip,crops. flip: mirror image, of every
    view; vflip: upside down; rotate: quarter turns; crops: the four corners."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("top", 1),))
        check_views(self.tta)
        super().check()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a classifier."""

    labels: Path | None = None
    """Text file with one class name per line, if the model has none or others are wanted."""
    worst: int = 24
    """Number of the worst errors to keep with their images."""
    tta: str = ""
    """Test-time augmentation: mean of the probabilities over views, such as flip,crops. flip: mirror image, of every
    view; vflip: upside down; rotate: quarter turns; crops: the four corners."""
    image_column: str | None = None
    """Column of a table that holds the path of the image; common names are found by default."""
    label_column: str | None = None
    """Column of a table that holds the class."""
    split_column: str | None = None
    """Column of a table that holds train, val or test."""

    def check(self) -> None:
        """Check the values."""
        check_views(self.tta)
        super().check()


def check_views(text: str) -> tuple[str, ...]:
    """Return the views that an option names.

    Raises:
        VitrailError: there is no such view.

    Example:
        >>> check_views("flip,crops"), check_views("")
        (('flip', 'crops'), ())
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in VIEWS:
            raise unknown("view of --tta", name, VIEWS)
    return names
