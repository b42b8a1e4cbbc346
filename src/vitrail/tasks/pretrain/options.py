"""Options of masked pretraining. No torch: the command line shows its help from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a pretraining run."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("vocab_size", "lowercase", "tokenizer", "max_length"),
        "pretraining": ("mask", "next_sentence"),
    }
    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "bert_tiny", "epochs": 10, "batch": 32}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"epochs": 5, "lr": 2e-4, "layer_decay": 1.0}

    vocab_size: int = 8000
    """Most tokens of the byte-pair vocabulary learnt on the training text."""
    lowercase: bool = True
    """Lower-case texts, for a learnt vocabulary."""
    tokenizer: str | None = None
    """A tokenizer.json with [MASK], or a folder with one, in place of a learnt vocabulary; default: that of the
    weights."""
    max_length: int = 128
    """Most tokens of a segment or of a pair; longer lines are cut into segments."""
    mask: float = 0.15
    """Share of the tokens that are predicted: 80 % of them are masked, 10 % replaced by a random one, 10 % kept."""
    next_sentence: bool = False
    """Also learn whether the second of two lines follows the first; for texts whose lines are in order."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("vocab_size", 300), Range("max_length", 8), Range("mask", 0, 1, open_low=True)))
        super().check()


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of filling masked words."""

    FP32: ClassVar[str] = "Models of texts"
    REQUEST: ClassVar = {"top": (1, 100)}

    text: tuple[str, ...] = ()
    """Texts with [MASK] in place of a word, as well as or instead of files with one in each line."""
    top: int = 5
    """Number of words for each mask."""

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
    """Options of evaluating masked predictions."""

    FP32: ClassVar[str] = "Models of texts"
