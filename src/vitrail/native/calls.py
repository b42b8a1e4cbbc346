"""How Python calls compiled operations: by address, on tensors that lie in one piece."""

import ctypes
from collections.abc import Callable

from torch import Tensor, dtype
from torch.nn import Parameter

from vitrail.errors import VitrailError
from vitrail.native.library import SUFFIXES, library


def function(source: str, name: str, precision: dtype, to: dtype | None = None) -> Callable[..., None]:
    """Return the operation `name` of `source.cpp` for a precision, or from one `to` another."""
    suffix = SUFFIXES[precision] if to in (None, precision) else f"{SUFFIXES[precision]}_{SUFFIXES[to]}"
    found = getattr(library(source), f"vitrail_{name}_{suffix}")
    found.restype = None
    return found


def at(x: Tensor | None) -> ctypes.c_void_p:
    """Return where a tensor in one piece lies; None is nowhere.

    Raises:
        VitrailError: as `start_of`.
    """
    assert x is None or x.is_contiguous()
    return ctypes.c_void_p(None) if x is None else start_of(x)


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
