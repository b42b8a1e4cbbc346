"""Speedups of optimized models measured on this machine, so that one noisy trial does not decide alone."""

import json
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor, nn

from vitrail import __version__
from vitrail.cache import cache_folder, fingerprint, written
from vitrail.errors import ResourceError

MOST = 9
"""Number of the last trials whose median decides."""


def trial_key(model: nn.Module, images: Tensor, precision: str) -> str:
    """Return the cache key of a trial: model without its weights, image size, precision, machine and versions."""
    shapes = [(name, tuple(value.shape)) for name, value in model.named_parameters()]
    first = next(model.parameters())
    device = torch.cuda.get_device_name(first.device) if first.is_cuda else torch.backends.cpu.get_cpu_capability()
    place = (device, torch.get_num_threads(), torch.__version__, __version__)
    return fingerprint(type(model).__name__, shapes, tuple(images.shape[1:]), precision, place)


def remembered(key: str, speedup: float) -> float:
    """Add a measured speedup to those of the same trial, and return their median.

    Without a writable cache the new value is returned.
    """
    try:
        path = cache_folder("speed") / f"{key}.json"
        known = [*_read(path.read_bytes()), speedup][-MOST:] if path.is_file() else [speedup]
        with written(path) as file:
            file.write(json.dumps(known).encode())
    except (OSError, ResourceError):
        return speedup
    return median(known)


def _read(content: bytes) -> Sequence[float]:
    """Return the values of a cache file, none if it is damaged."""
    try:
        values = json.loads(content)
    except ValueError:
        return []
    good = isinstance(values, list) and all(isinstance(value, float) and value > 0 for value in values)
    return values if good else []
