"""Memory of a forward pass, counted on the meta device: the largest sum of tensors alive at a time."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor):
                self._add(each.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def pixel_bytes(model: nn.Module, meta: nn.Module, channels: int, side: int = 64) -> float:
    """Return the bytes that a forward pass takes at its peak for each input pixel, without the weights.

    Args:
        model: the model; it decides between inference and training.
        meta: the same model on the meta device.
        channels: channels of the images.
        side: side of the probe image.
    """
    meta.train(model.training)
    counter = _LiveBytes()
    with torch.inference_mode(), counter:
        meta(torch.empty(1, channels, side, side, device="meta"))
    return counter.peak / side**2
