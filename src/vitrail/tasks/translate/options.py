"""Options of translation. No torch: the command line shows its help from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that translates. `batch` counts tokens of the longer side, padding included."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("source", "target", "vocab_size", "lowercase", "tokenizer", "max_length"),
        "optimisation": ("smoothing",),
    }
    SCRATCH: ClassVar[Mapping[str, Any]] = {
        "model": "transformer_tiny_multi30k",
        "epochs": 30,
        "lr": 3e-3,
        "warmup": 0.1,
        "batch": 4096,
    }
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {"epochs": 5, "lr": 5e-4, "layer_decay": 1.0, "batch": 4096}

    source: str | None = None
    """Language to translate from: a file ending (train.en), or a column of a table."""
    target: str | None = None
    """Language to translate into."""
    vocab_size: int = 10000
    """Most tokens of the byte-pair vocabulary, learnt on both languages of the training split."""
    lowercase: bool = False
    """Lower-case texts; the translations are lower case too."""
    tokenizer: str | None = None
    """A tokenizer.json, or a folder with one, in place of a learnt vocabulary; default: that of the weights."""
    max_length: int = 256
    """Most tokens of a sentence: longer pairs are left out of training, longer sentences are cut in use; both are
    counted and reported."""
    smoothing: float = 0.1
    """Label smoothing, in [0, 1)."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("vocab_size", 260), Range("max_length", 4), Range("smoothing", 0, 1)))
        super().check()


@dataclass(frozen=True, kw_only=True)
class BeamFlags(Options):
    """Options of a beam search."""

    beam: int = 5
    """Unfinished translations kept in each step; 1 is greedy."""
    length_penalty: float = 1.0
    """Exponent a of the length penalty; 0 is none, larger values prefer longer translations."""
    penalty: Literal["power", "gnmt"] = "power"
    """Form of the length penalty for n tokens: power is log p / n^a, gnmt is log p / ((5 + n) / 6)^a."""
    search: Literal["proved", "first"] = "proved"
    """End of a search: proved if no unfinished translation can become one of the best; first if as many as the beam are
    finished, which takes fewer steps and proves nothing."""
    decode: options.Decode = "auto"
    """Weights of native decoding (one call a step, CPU): fp32, bf16, int8 or codebook (four bits), torch for PyTorch;
    auto is native fp32 if the model has such a form."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("beam", 1), Range("length_penalty", -10, 10)))
        check_choices(
            self, {"penalty": ("power", "gnmt"), "search": ("proved", "first"), "decode": get_args(options.Decode)}
        )
        super().check()


@dataclass(frozen=True, kw_only=True)
class PredictOptions(BeamFlags, options.PredictionOptions):
    """Options of translating texts."""

    FP32: ClassVar[str] = "Models of texts"
    REQUEST: ClassVar = {"beam": (1, 16), "length_penalty": (-10, 10), "penalty": None, "search": None}

    text: tuple[str, ...] = ()
    """Texts to translate, as well as or instead of files."""
    exact: bool = False
    """Search on until no better translation exists at all, through at most 10,000 prefixes; for short sentences.
    At that limit the best so far is printed, which is then open and not certified."""

    def sources(self, inputs: Sequence[str]) -> object:
        """Return files, texts, or standard input."""
        from vitrail.tasks.text_sources import named_sources

        return named_sources(inputs, self.text)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(BeamFlags, options.EvaluationOptions):
    """Options of evaluating a translation model."""

    FP32: ClassVar[str] = "Models of texts"

    testset: str | None = None
    """Name of a test set, if the data has several: test_2017_flickr."""
    worst: int = 20
    """Number of the worst translations to keep."""
