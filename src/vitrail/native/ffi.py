"""Calls of native functions through ctypes, with data pointers of contiguous tensors."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from torch import Tensor, dtype
from torch.nn import Parameter

from vitrail.errors import VitrailError
from vitrail.native.build import SOURCES, SUFFIXES, library
from vitrail.native.prototypes import Arguments, filled, structs


def call(source: str, name: str, precision: dtype, to: dtype | None = None, /, **arguments: Any) -> Any:
    """Call the native function `name` of `source.cpp` for a dtype, or for a pair of dtypes, with its argument struct.

    Args:
        source: name of the library.
        name: name of the function, without suffix.
        precision: dtype of the suffix.
        to: second dtype of the suffix, if it differs.
        arguments: every field of the struct: numbers, pointers (`at`) and nested structs.
    """
    function = getattr(library(source), _symbol(name, precision, to))
    return function(filled(function.argtypes[0]._type_, arguments))


def invoke(function: Callable[[Any], Any], /, **arguments: Any) -> Any:
    """Call a native function with its argument struct; every field is given by name."""
    return function(filled(function.argtypes[0]._type_, arguments))  # type: ignore[attr-defined]  # of ctypes


@lru_cache(maxsize=256)
def _symbol(name: str, precision: dtype, to: dtype | None) -> str:
    suffix = SUFFIXES[precision] if to in (None, precision) else f"{SUFFIXES[precision]}_{SUFFIXES[to]}"
    return f"vitrail_{name}_{suffix}"


@cache
def _structs() -> dict[str, type[Arguments]]:
    sources = [*sorted(SOURCES.glob("*.h")), *sorted(SOURCES.glob("*.cpp"))]
    return structs("\n".join(path.read_text() for path in sources))


def nested(name: str, /, **fields: Any) -> Arguments:
    """Return an argument struct with numbers and data pointers of contiguous tensors, to be a field of another one.

    Raises:
        VitrailError: as `start_of`.
    """
    values = {field: at(x) if x is None or isinstance(x, Tensor) else x for field, x in fields.items()}
    return filled(_structs()[name], values)


class Operand:
    """Nested argument struct of constant tensors such as weights, whose pointers are validated once.

    A copy has copies of the tensors, and their pointers.

    Args:
        struct: name of the struct in C++.
        fields: its tensors and numbers.

    Raises:
        VitrailError: as `start_of`.

    Example:
        >>> import copy, torch
        >>> norm = Operand("NormArgs", weight=torch.ones(16), bias=None, eps=1e-5)
        >>> copied = copy.deepcopy(norm)
        >>> copied.args.weight == copied.fields["weight"].data_ptr() != norm.args.weight
        True
    """

    def __init__(self, struct: str, /, **fields: Tensor | float | None):
        self.struct, self.fields = struct, fields
        self.args = nested(struct, **fields)

    def __reduce__(self) -> tuple[Callable[..., "Operand"], tuple[str, dict[str, Tensor | float | None]]]:
        return _operand, (self.struct, self.fields)


def _operand(struct: str, fields: dict[str, Tensor | float | None]) -> Operand:
    return Operand(struct, **fields)


def at(x: Tensor | None) -> int | None:
    """Return the data pointer of a contiguous tensor; None, a null pointer, for None.

    Raises:
        VitrailError: as `start_of`.
    """
    if x is None:
        return None
    assert x.is_contiguous()
    return start_of(x)


def start_of(x: Tensor) -> int:
    """Return the data pointer of a tensor.

    Raises:
        VitrailError: it has no data in CPU memory: it is on a GPU, on `meta` or a tracing tensor.
    """
    if not x.is_cpu or type(x) not in (Tensor, Parameter):
        raise VitrailError(
            f"A compiled operation needs numbers in memory, and got a {type(x).__name__} on {x.device}.\n"
            "Give the optimized model images on the CPU; to trace, export or move a model, take its source."
        )
    return x.data_ptr()
