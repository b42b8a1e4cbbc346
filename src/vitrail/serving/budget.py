"""Memory that all requests together may hold."""

from threading import Lock

import numpy as np
from PIL import Image
from torch import Tensor

from vitrail.serving.refusal import Refusal


class MemoryBudget:
    """Counter of bytes held by requests; thread-safe.

    Args:
        limit: most bytes.

    Example:
        >>> budget = MemoryBudget(10)
        >>> budget.take(10)
        >>> budget.take(1)
        Traceback (most recent call last):
        vitrail.serving.refusal.Refusal: The server holds as much data as it may; try again.
        >>> budget.give(10)
        >>> budget.used
        0
    """

    def __init__(self, limit: int):
        self.limit, self.used = limit, 0
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Count `size` bytes more.

        Raises:
            Refusal: they would exceed the limit; nothing is counted.
        """
        with self._lock:
            if self.used + size > self.limit:
                raise Refusal(503, "memory", "The server holds as much data as it may; try again.", retry_after=1)
            self.used += size

    def give(self, size: int) -> None:
        """Count `size` bytes less."""
        with self._lock:
            self.used -= size


def held_bytes(value: object) -> int:
    """Return the bytes of the tensors, arrays, images and texts in a loaded input; bodies are counted on their own.

    Example:
        >>> held_bytes((np.zeros((2, 3), np.uint8), "ab", None))
        8
    """
    if value is None:
        return 0
    if isinstance(value, Tensor | np.ndarray):
        return value.nbytes
    if isinstance(value, Image.Image):
        return value.width * value.height * len(value.getbands())
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, tuple | list):
        return sum(map(held_bytes, value))
    return held_bytes(getattr(value, "held", None))
