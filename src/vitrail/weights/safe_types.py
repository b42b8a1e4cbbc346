"""Types of plain data that training scripts store with tensors: numbers and arrays of NumPy, containers."""

import argparse
from collections import defaultdict
from pickle import UnpicklingError
from typing import Any

import numpy as np

_NUMERIC = "biufcSU?"  # kinds of dtypes whose values are plain bytes


def numeric_dtype(*arguments: Any) -> np.dtype:
    """Return a NumPy dtype without objects; it replaces `numpy.dtype` in a pickle.

    Raises:
        UnpicklingError: the dtype holds Python objects or fields.

    Example:
        >>> numeric_dtype("f4")
        dtype('float32')
    """
    dtype = np.dtype(*arguments)
    if dtype.kind not in _NUMERIC:
        raise UnpicklingError(f"NumPy values of type {dtype}")
    return dtype


def safe_types() -> list[Any]:
    """Return the types and functions that `torch.load(weights_only=True)` may call, with their names in pickles."""
    dtypes = {type(np.dtype(code)) for code in (*"?bhilqBHILQefdFDSU", "int32", "int64", "uint32", "uint64")}
    multiarray: Any = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    numpy: list[Any] = [(numeric_dtype, "numpy.dtype"), np.ndarray, *dtypes]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):  # NumPy 2 and 1
        numpy += [(multiarray.scalar, f"{module}.scalar"), (multiarray._reconstruct, f"{module}._reconstruct")]
    containers: list[Any] = [defaultdict]
    for kind in (list, dict, set, tuple, int, float, str, bool):
        containers += [(kind, f"builtins.{kind.__name__}"), (kind, f"__builtin__.{kind.__name__}")]
    return [argparse.Namespace, *numpy, *containers]
