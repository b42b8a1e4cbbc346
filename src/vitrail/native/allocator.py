"""Caching allocator for large CPU outputs, in huge pages if the system has them.

The system allocator returns large buffers to the kernel, and each new one costs page faults and zeroing: 5 % of the
latency of a Swin. Here free buffers are reused.
"""

import mmap
import sys
from contextlib import suppress
from math import prod
from threading import Lock

import torch
from torch import Tensor

SMALL = 1 << 20  # smaller buffers are cached by the system allocator
PAGE = 2 << 20
MOST = 512 << 20  # bytes of the whole cache; larger buffers come from the system allocator
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_PROBE = [object()]
# Reference count of an object held only by its list and by this call; it differs between Python versions.
_UNUSED = sys.getrefcount(_PROBE[0])


class CachingAllocator:
    """Cache of buffers; a buffer is free if no tensor refers to it.

    A tensor made with `torch.frombuffer` holds a reference to its buffer as long as it or a view of it is alive, so
    Python's reference count shows which buffers are free, and a result in use is never overwritten.

    Args:
        most: maximum size of the cache in bytes.

    Example:
        >>> pool = CachingAllocator()
        >>> first = pool.empty((1024, 1024), torch.float32)
        >>> where, view = first.data_ptr(), first[0]
        >>> del first
        >>> pool.empty((1024, 1024), torch.float32).data_ptr() == where  # the view still lies there
        False
        >>> del view
        >>> pool.empty((1024, 1024), torch.float32).data_ptr() == where
        True
    """

    def __init__(self, most: int = MOST):
        self.most = most
        self.pieces: list[mmap.mmap] = []
        self.lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor."""
        count = prod(shape)
        size = count * dtype.itemsize
        if size < SMALL:
            return torch.empty(shape, dtype=dtype, device="cpu")
        with self.lock:
            piece = self._piece(size)
            if piece is None:
                return torch.empty(shape, dtype=dtype, device="cpu")
            return torch.frombuffer(piece, dtype=dtype, count=count).view(shape)

    def _piece(self, size: int) -> mmap.mmap | None:
        """Return the smallest free buffer of a suitable size, or a new one if the cache has room."""
        free = self._free()
        fitting = [i for i in free if size <= len(self.pieces[i]) <= 2 * size + PAGE]
        if fitting:
            return self.pieces[min(fitting, key=lambda i: len(self.pieces[i]))]
        size = -(-size // PAGE) * PAGE
        if sum(map(len, self.pieces)) + size > self.most:
            for i in reversed(free):
                del self.pieces[i]
        if sum(map(len, self.pieces)) + size > self.most:
            return None
        piece = mmap.mmap(-1, size, **_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # fails without huge pages, and for small buffers
                piece.madvise(mmap.MADV_HUGEPAGE)
        self.pieces.append(piece)
        return piece

    def _free(self) -> list[int]:
        return [i for i in range(len(self.pieces)) if sys.getrefcount(self.pieces[i]) == _UNUSED]


_pool = CachingAllocator()


def fp32(*shape: int) -> Tensor:
    """Return an uninitialised fp32 tensor on the CPU, independent of torch's defaults."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor on the CPU."""
    return _pool.empty(shape, dtype)
