"""Calls of native functions through ctypes, with data pointers of contiguous tensors."""

import ctypes
from collections.abc import Callable
from functools import lru_cache

from torch import Tensor, dtype
from torch.nn import Parameter

from vitrail.errors import VitrailError
from vitrail.native.build import SUFFIXES, library


def function(source: str, name: str, precision: dtype, to: dtype | None = None) -> Callable[..., None]:
    """Return the native function `name` of `source.cpp` for a dtype, or for a pair of dtypes."""
    return getattr(library(source), _symbol(name, precision, to))


@lru_cache(maxsize=256)
def _symbol(name: str, precision: dtype, to: dtype | None) -> str:
    suffix = SUFFIXES[precision] if to in (None, precision) else f"{SUFFIXES[precision]}_{SUFFIXES[to]}"
    return f"vitrail_{name}_{suffix}"


class DataPointers:
    """Data pointers of constant tensors such as weights, validated once.

    A copy has copies of the tensors, and their pointers.

    Raises:
        VitrailError: as `start_of`.

    Example:
        >>> import copy, torch
        >>> pointers = DataPointers(torch.zeros(4), None)
        >>> copied = copy.deepcopy(pointers)
        >>> copied.addresses[0].value == copied.tensors[0].data_ptr() != pointers.addresses[0].value
        True
    """

    def __init__(self, *tensors: Tensor | None):
        self.tensors = tensors
        self.addresses = tuple(map(at, tensors))

    def __reduce__(self) -> tuple[type["DataPointers"], tuple[Tensor | None, ...]]:
        return DataPointers, self.tensors


_NOWHERE = ctypes.c_void_p(None)


def at(x: Tensor | None) -> ctypes.c_void_p:
    """Return the data pointer of a contiguous tensor; null for None.

    Raises:
        VitrailError: as `start_of`.
    """
    if x is None:
        return _NOWHERE
    assert x.is_contiguous()
    return start_of(x)


def start_of(x: Tensor) -> ctypes.c_void_p:
    """Return the data pointer of a tensor.

    Raises:
        VitrailError: it has no data in CPU memory: it is on a GPU, on `meta` or a tracing tensor.
    """
    if not x.is_cpu or type(x) not in (Tensor, Parameter):
        raise VitrailError(
            f"A compiled operation needs numbers in memory, and got a {type(x).__name__} on {x.device}.\n"
            "Give the fast form images on the CPU; to trace, export or move a model, take the one it was made from."
        )
    return ctypes.c_void_p(x.data_ptr())
