"""Options of sentence classification. No torch: the command line shows its help from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that classifies texts."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("vocab", "vocab_size", "lowercase", "tokenizer", "max_length"),
        "augmentation": ("word_dropout",),
        "optimisation": ("smoothing",),
    }
    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "text_encoder_tiny", "epochs": 15, "batch": 32}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"epochs": 3, "lr": 1e-4, "layer_decay": 0.9}

    vocab: Literal["bpe", "words"] = "bpe"
    """Vocabulary learnt on the training split: byte pairs, which know every text, or whole words."""
    vocab_size: int = 8000
    """Most tokens of a learnt vocabulary."""
    lowercase: bool = True
    """Lower-case texts, for a learnt vocabulary."""
    tokenizer: str | None = None
    """A tokenizer.json, or a folder with one, in place of a learnt vocabulary; default: that of the weights."""
    max_length: int | None = None
    """Most tokens of a text, longer ones are cut and counted; default: the model's positions, at most 512."""
    word_dropout: float = 0.0
    """Probability that a token is replaced by an unknown one in training."""
    smoothing: float = 0.0
    """Label smoothing, in [0, 1)."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, _RANGES)
        check_choices(self, {"vocab": ("bpe", "words")})
        super().check()


_RANGES = (
    Range("vocab_size", 10),
    Range("max_length", 2),
    Range("word_dropout", 0, 1),
    Range("smoothing", 0, 1),
)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of naming the classes of texts."""

    REQUEST: ClassVar = {"top": (1, 1000), "explain": None}

    text: tuple[str, ...] = ()
    """Texts to classify, as well as or instead of files."""
    labels: Path | None = None
    """Text file with one class name per line, if the model has none or others are wanted."""
    top: int = 5
    """Number of classes in each prediction."""
    explain: bool = False
    """Mark the words that decided: the change of the log-odds if a word is removed."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("top", 1),))
        super().check()

    def sources(self, inputs: Sequence[str]) -> object:
        """Return files, texts, or standard input."""
        from vitrail.tasks.text_sources import named_sources

        return named_sources(inputs, self.text)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a classifier of texts."""

    labels: Path | None = None
    """Text file with one class name per line, if the model has none or others are wanted."""
    worst: int = 24
    """Number of the worst errors to keep with their texts."""
