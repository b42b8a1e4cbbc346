"""How Python calls compiled operations: by address, on tensors that lie in one piece."""

import ctypes
from collections.abc import Callable
from functools import lru_cache

from torch import Tensor, dtype
from torch.nn import Parameter

from vitrail.errors import VitrailError
from vitrail.native.build import SUFFIXES, library


def function(source: str, name: str, precision: dtype, to: dtype | None = None) -> Callable[..., None]:
    """Return the operation `name` of `source.cpp` for a precision, or from one `to` another."""
    return getattr(library(source), _symbol(name, precision, to))


@lru_cache(maxsize=256)
def _symbol(name: str, precision: dtype, to: dtype | None) -> str:
    suffix = SUFFIXES[precision] if to in (None, precision) else f"{SUFFIXES[precision]}_{SUFFIXES[to]}"
    return f"vitrail_{name}_{suffix}"


class DataPointers:
    """Where tensors lie that stay there, such as weights: they are looked at once, and not in each call.

    Copies of it are of copied tensors.

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
    """Return where a tensor in one piece lies; None is nowhere.

    Raises:
        VitrailError: as `start_of`.
    """
    if x is None:
        return _NOWHERE
    assert x.is_contiguous()
    return start_of(x)


def start_of(x: Tensor) -> ctypes.c_void_p:
    """Return where the first number of a tensor lies.

    Raises:
        VitrailError: it has no numbers in this machine's memory, as on a GPU, on `meta` or while a program is traced.
    """
    if not x.is_cpu or type(x) not in (Tensor, Parameter):
        raise VitrailError(
            f"A compiled operation needs numbers in memory, and got a {type(x).__name__} on {x.device}.\n"
            "Give the fast form pictures on the CPU; to trace, export or move a model, take the one it was made from."
        )
    return ctypes.c_void_p(x.data_ptr())
