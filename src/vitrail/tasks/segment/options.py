"""Options of semantic segmentation. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vitrail.errors import VitrailError
from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges

DECODERS = {"upernet": "upernet", "mlp": "segformer", "fpn": "fpn_segmenter"}
"""Variant of each decoder, whose backbone is replaced by the model asked for."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that labels pixels."""

    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "upernet_swin_tiny", "batch": 16}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"model": "upernet_swin_tiny", "batch": 16, "epochs": 50}
    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("imgsz", "short_side", "ignore"),
        "model": ("decoder",),
        "augmentation": ("scale_min", "scale_max", "flip", "jitter", "most"),
        "loss": ("dice", "class_weights", "auxiliary"),
    }

    imgsz: int | None = None
    """Side of the square training crops in pixels; default: the model's own."""
    short_side: int | None = None
    """Short side that every image is brought to, in training and later; default: images keep their size."""
    ignore: tuple[int, ...] = ()
    """Numbers in the masks that never count, beside 255 and the lines `void` of a file of class names."""

    decoder: Literal["upernet", "mlp", "fpn"] = "upernet"
    """Decoder on a backbone, if the model is one (vit_tiny_patch16_224) and no segmenter (upernet_swin_tiny)."""

    scale_min: float = 0.5
    """Least factor of the scale jitter."""
    scale_max: float = 2.0
    """Greatest factor of the scale jitter."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.4
    """Strength of random brightness, contrast and saturation; 0 is off."""
    most: float = 0.75
    """Largest share of one class in a crop; others are drawn again, up to ten times. 1 takes every crop."""

    dice: float = 0.0
    """Weight of the Dice loss beside the cross-entropy."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the cross-entropy; balanced is 1 / ln(1.02 + share of the training pixels) (ENet)."""
    auxiliary: float = 0.4
    """Weight of the auxiliary head's cross-entropy, if the decoder has one."""

    def check(self) -> None:
        """Check the values."""
        object.__setattr__(self, "ignore", tuple(self.ignore))
        check_ranges(self, _RANGES)
        check_choices(self, {"decoder": tuple(DECODERS), "class_weights": ("none", "balanced")})
        if self.scale_min > self.scale_max:
            raise VitrailError(f"scale_min is {self.scale_min}, above scale_max {self.scale_max}. Swap them.")
        super().check()


_RANGES = (
    Range("imgsz", 8),
    Range("short_side", 8),
    Range("scale_min", 0, open_low=True),
    Range("scale_max", 0, open_low=True),
    Range("flip", 0, 1, open_high=False),
    Range("jitter", 0, 1, open_high=False),
    Range("most", 0, 1, open_low=True, open_high=False),
    Range("dice", 0),
    Range("auxiliary", 0),
)

_INFERENCE = (Range("window", 0), Range("overlap", 0, 1))


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of labelling pixels."""

    REQUEST: ClassVar = {"flip_test": None}

    window: int = 0
    """Side of sliding windows whose scores are averaged; 0 takes images whole. Models of a fixed size need it."""
    overlap: float = 0.33
    """Least share of a window that the next one repeats."""
    flip_test: bool = False
    """Average the probabilities of the image and of its mirror image."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, _INFERENCE)
        super().check()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a segmenter."""

    window: int = 0
    """Side of sliding windows whose scores are averaged; 0 takes images whole. Models of a fixed size need it."""
    overlap: float = 0.33
    """Least share of a window that the next one repeats."""
    flip_test: bool = False
    """Average the probabilities of the image and of its mirror image."""
    worst: int = 12
    """Number of the worst images to keep with their masks."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (*_INFERENCE, Range("worst", 0)))
        super().check()
