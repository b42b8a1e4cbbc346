"""Options of image completion. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vitrail.errors import VitrailError
from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run of a model that completes images."""

    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "pixel_gpt_xxs", "epochs": 20, "lr": 3e-3, "batch": 32}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"epochs": 5, "lr": 1e-3, "layer_decay": 1.0}


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(Options):
    """How the missing pixels are drawn."""

    samples: int = 4
    """Completions of an image."""
    keep: float = 0.5
    """Share of the rows that are given, from the top."""
    temperature: float = 1.0
    """Scores are divided by it: below 1 sharper, above 1 flatter; 0 always takes the most probable colour."""
    top_k: int = 0
    """Only the k most probable colours; 0 for all."""
    top_p: float = 1.0
    """Only the most probable colours whose probabilities reach p in sum; 1 for all."""
    seed: int = 0
    """Seed of the draws; the same seed gives the same images."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, _RANGES)
        if self.temperature == 0 and self.samples > 1:
            raise VitrailError("temperature is 0, so all samples would be the same: use samples=1.")
        super().check()


_RANGES = (
    Range("samples", 1),
    Range("keep", 0, 1),
    Range("temperature", 0),
    Range("top_k", 0),
    Range("top_p", 0, 1, open_low=True, open_high=False),
    Range("seed", 0, 2**63),
)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(GenerateOptions, options.PredictionOptions):
    """Options of completing images."""

    FP32: ClassVar[str] = "Models of pixels"
    REQUEST: ClassVar = {
        "samples": (1, 16),
        "keep": (0, 1),
        "temperature": (0, 100),
        "top_k": (0, 1_000_000),
        "top_p": (0, 1),
        "seed": (0, 2**63 - 1),
    }


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a model that completes images."""

    FP32: ClassVar[str] = "Models of pixels"
