"""How Python calls compiled operations: by address, on tensors that lie in one piece."""

import ctypes
from collections.abc import Callable

from torch import Tensor, dtype

from vitrail.native.library import SUFFIXES, library


def function(source: str, name: str, precision: dtype, to: dtype | None = None) -> Callable[..., None]:
    """Return the operation `name` of `source.cpp` for a precision, or from one `to` another."""
    suffix = SUFFIXES[precision] if to in (None, precision) else f"{SUFFIXES[precision]}_{SUFFIXES[to]}"
    found = getattr(library(source), f"vitrail_{name}_{suffix}")
    found.restype = None
    return found


def at(x: Tensor | None) -> ctypes.c_void_p:
    """Return where a tensor lies; None is nowhere."""
    assert x is None or x.is_contiguous()
    return ctypes.c_void_p(None if x is None else x.data_ptr())
