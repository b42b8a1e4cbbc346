"""Options of language modelling. No torch: the command line shows its help from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from vitrail.errors import VitrailError
from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run of a language model."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("vocab", "vocab_size", "tokenizer", "context"),
    }
    SCRATCH: ClassVar[Mapping[str, Any]] = {"model": "text_decoder_tiny", "epochs": 10, "lr": 3e-3, "batch": 32}
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"epochs": 3, "lr": 1e-4, "layer_decay": 1.0, "batch": 16}

    vocab: Literal["characters", "bpe"] = "characters"
    """Vocabulary learnt on the training text: its characters, or byte pairs."""
    vocab_size: int = 4000
    """Most tokens of a byte-pair vocabulary."""
    tokenizer: str | None = None
    """A tokenizer.json, or a folder with one, in place of a learnt vocabulary; default: that of the weights."""
    context: int = 256
    """Tokens of a window: a token is predicted from those before it in its window."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("vocab_size", 257), Range("context", 2)))
        check_choices(self, {"vocab": ("characters", "bpe")})
        super().check()


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(Options):
    """How tokens are chosen."""

    tokens: int = 200
    """Most new tokens."""
    temperature: float = 0.8
    """Scores are divided by it: below 1 sharper, above 1 flatter; 0 always takes the most probable token."""
    top_k: int = 0
    """Only the k most probable tokens; 0 for all."""
    top_p: float = 1.0
    """Only the most probable tokens whose probabilities reach p in sum; 1 for all."""
    seed: int = 0
    """Seed of the draws; the same seed gives the same text."""
    decode: options.Decode = "auto"
    """Weights of native decoding (one call a token, CPU): fp32, bf16, int8 or codebook (four bits), torch for PyTorch;
    auto is native fp32 if the model has such a form."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, _RANGES)
        check_choices(self, {"decode": get_args(options.Decode)})
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise VitrailError("temperature is 0, which takes the most probable token: leave top_k and top_p out.")
        super().check()


_RANGES = (
    Range("tokens", 1),
    Range("temperature", 0),
    Range("top_k", 0),
    Range("top_p", 0, 1, open_low=True, open_high=False),
    Range("seed", 0, 2**63),
)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(GenerateOptions, options.PredictionOptions):
    """Options of continuing texts."""

    FP32: ClassVar[str] = "Models of texts"
    REQUEST: ClassVar = {
        "tokens": (1, 1000),
        "temperature": (0, 100),
        "top_k": (0, 1_000_000),
        "top_p": (0, 1),
        "seed": (0, 2**63 - 1),
    }

    text: tuple[str, ...] = ()
    """Texts to continue, as well as or instead of files with one in each line."""

    def sources(self, inputs: Sequence[str]) -> object:
        """Return files, texts, or standard input."""
        from vitrail.tasks.text_sources import named_sources

        return named_sources(inputs, self.text)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating a language model."""

    FP32: ClassVar[str] = "Models of texts"

    context: int | None = None
    """Tokens of a window; default: that of the training, or the positions of the model."""
    stride: int | None = None
    """Tokens between the starts of two windows; default: the context, so windows do not overlap. A smaller stride gives
    each token more context, costs as many times more, and gives a lower loss."""
    tokenizer: str | None = None
    """A tokenizer.json, or a folder with one, if the model has no vocabulary."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("context", 2), Range("stride", 1)))
        super().check()
