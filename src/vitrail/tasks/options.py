"""Base of the options of a task, and checks of their values. No torch: the command line shows its help from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal, NamedTuple

from vitrail.errors import VitrailError, unknown

SECTIONS = ("data", "model", "optimisation", "augmentation", "distillation", "hardware", "run")
"""Sections of `vitrail train --help`, in their order; a task may use others, which come before `hardware`."""

Decode = Literal["auto", "fp32", "bf16", "int8", "codebook", "torch"]
"""What decodes a text: native code with weights in a precision, or PyTorch."""

Bad = Literal["fail", "skip", "list"]
"""Policy for unusable samples: an error that names them, left out, or listed in what was opened."""


@dataclass(frozen=True)
class Options:
    """Options that are checked when they are set.

    Classes of options are joined by inheritance (those of a run and those of a task), and each checks its own fields.
    """

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Fields by section of the help."""
    SCRATCH: ClassVar[Mapping[str, Any]] = {}
    """Defaults of a task's training run from random weights: fields of `training.recipe.Recipe`."""
    FINE_TUNING: ClassVar[Mapping[str, Any]] = {}
    """The same for a run that starts from weights."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check the values; the next class of the inheritance order checks its own."""


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(Options):
    """Options of every prediction."""

    REQUEST: ClassVar[Mapping[str, tuple[float, float] | None]] = {}
    """Fields that one request to a server may set, each with bounds that keep its cost finite; None for a choice."""
    FP32: ClassVar[str] = ""
    """The kind of the models, if they compute in fp32 alone."""

    batch: int = 32
    """Inputs in a batch; predictions do not depend on it."""
    precision: Literal["auto", "fp32", "bf16", "int8"] | None = None
    """Compute precision; default fp32, or that of the interrupted job. auto is bf16 in the optimized model if that is
    faster here, else fp32; int8 is taken if it is faster and agrees on the first inputs, else auto is."""
    optimize: bool = True
    """Allow the optimized model if it is faster here and agrees on the first inputs."""

    def check(self) -> None:
        """Check the values."""
        check_fp32(self.FP32, self.precision)
        super().check()

    def sources(self, inputs: Sequence[str]) -> object:
        """Return the inputs of a job, as `Task.collect` takes them, from the words of the command line."""
        return inputs


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """Options of every evaluation."""

    FP32: ClassVar[str] = ""
    """The kind of the models, if they compute in fp32 alone."""

    batch: int = 64
    """Samples in a batch; the figures do not depend on it."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "fp32"
    """Compute precision."""
    optimize: bool = True
    """Allow the optimized model if it is faster here and agrees on the first samples."""
    bad: Literal["fail", "skip"] = "fail"
    """Treatment of unreadable samples: stop at the first, or leave them out."""

    def check(self) -> None:
        """Check the values."""
        check_fp32(self.FP32, self.precision)
        super().check()


def check_fp32(kind: str, precision: str | None) -> None:
    """Refuse a precision that a kind of model does not compute in.

    Example:
        >>> check_fp32("Models of points", "bf16")
        Traceback (most recent call last):
        ...
        vitrail.errors.VitrailError: Models of points compute in fp32, got --precision bf16. Leave it out.
    """
    if kind and precision not in (None, "auto", "fp32"):
        raise VitrailError(f"{kind} compute in fp32, got --precision {precision}. Leave it out.")


class Range(NamedTuple):
    """Allowed values of a number.

    Args:
        name: the field.
        low: least value.
        high: largest value.
        open_low: whether `low` itself is excluded.
        open_high: whether `high` itself is excluded.
        hint: sentence for the error.
    """

    name: str
    low: float
    high: float = inf
    open_low: bool = False
    open_high: bool = True
    hint: str = ""

    def __str__(self) -> str:
        floor = f"above {self.low}" if self.open_low else f"at least {self.low}"
        if self.high == inf:
            return floor
        return f"{floor} and {'below' if self.open_high else 'at most'} {self.high}"

    def check(self, value: object) -> None:
        """Raise `VitrailError` if a value is no number or outside; None is a value not given.

        Example:
            >>> Range("lr", 0, open_low=True).check(-1.0)
            Traceback (most recent call last):
            ...
            vitrail.errors.VitrailError: lr is -1.0; it must be above 0.
        """
        if value is None:
            return
        if isinstance(value, str | bool) or not isinstance(value, int | float):
            raise VitrailError(f"{self.name} is {value!r}; a number is needed. {self.hint}".rstrip())
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        if not (above and below):
            raise VitrailError(f"{self.name} is {value}; it must be {self}. {self.hint}".rstrip())


def check_ranges(options: object, ranges: Iterable[Range]) -> None:
    """Check the numbers of some options; a field that may be `auto` is not checked if it is.

    Example:
        >>> from types import SimpleNamespace
        >>> check_ranges(SimpleNamespace(rate=2.0), [Range("rate", 0, 3)]) is None
        True
    """
    for each in ranges:
        value = getattr(options, each.name)
        if not (value == "auto" and "auto" in each.hint):
            each.check(value)


def check_choices(options: object, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Check fields that name one of several choices.

    Example:
        >>> from types import SimpleNamespace
        >>> check_choices(SimpleNamespace(border="zero"), {"border": ("zero", "reflect")}) is None
        True
    """
    for name, valid in choices.items():
        if getattr(options, name) not in valid:
            raise unknown(name, str(getattr(options, name)), valid)
