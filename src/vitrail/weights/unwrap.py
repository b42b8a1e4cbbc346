"""Find the state dict in a checkpoint of a training script."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.errors import DataError

# Averaged weights first: they are the ones that were evaluated. A teacher is the averaged student.
_NESTS = ("state_dict_ema", "model_ema", "params_ema", "ema", "teacher", "model_state_dict", "state_dict", "model")
_LATER_NESTS = ("params", "net", "network", "module", "student", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "ema.", "net.", "timm_model.", "params/", "opt/target/")


def unwrap(values: Mapping[str, Any], origin: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict without outer dictionaries and key prefixes, and notes on the removed parts.

    Args:
        values: content of the file.
        origin: its name, for the error.

    Raises:
        DataError: there is no tensor in it.

    Example:
        >>> import torch
        >>> unwrap({"epoch": 3, "model": {"module.head.bias": torch.zeros(1)}}, "a.pth")
        ({'head.bias': tensor([0.])}, ["took 'model'", "took 'module.' off every key"])
    """
    notes: list[str] = []
    while not any(isinstance(value, Tensor) for value in values.values()) or _nest(values):
        nest = _nest(values)
        if nest is None:
            shown = ", ".join(map(repr, list(values)[:8])) or "nothing"
            raise DataError(f"{origin} holds no tensors. At its top: {shown}.\nGive a file with a state dict.")
        notes.append(f"took {nest!r}")
        values = values[nest]
    tensors = {str(key): value for key, value in values.items() if isinstance(value, Tensor)}
    while prefix := next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in tensors)), None):
        notes.append(f"took {prefix!r} off every key")
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors, notes


def _nest(values: Mapping[str, Any]) -> str | None:
    """Return the key of the best nested dictionary, if there is one."""
    return next((key for key in (*_NESTS, *_LATER_NESTS) if isinstance(values.get(key), Mapping) and values[key]), None)
