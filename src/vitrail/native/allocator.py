"""Memory for large results, taken again once nobody holds it.

An allocator gives large memory back to the system and gets it anew, page by page and cleared: a twentieth of Swin's
time. Here it is kept, in huge pages where the system has them.
"""

import mmap
import sys
from contextlib import suppress
from math import prod
from threading import Lock

import torch
from torch import Tensor

SMALL = 1 << 20  # what is smaller, allocators keep themselves
PAGE = 2 << 20
MOST = 512 << 20  # kept in all; what is larger comes from the allocator
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_PROBE = [object()]
# References to what only its list and the question hold; Pythons count differently.
_UNUSED = sys.getrefcount(_PROBE[0])


class CachingAllocator:
    """Pieces of memory; a piece is free when no tensor lies in it.

    A tensor made with `torch.frombuffer` holds a reference to its piece for as long as it or a view of it lives, so
    Python's own count says what is free, and an answer that somebody keeps is never written over.

    Args:
        most: bytes to keep at most.

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
        """Return a tensor whose numbers are whatever was there before."""
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
        """Return the smallest free piece that is large enough and no waste, or a new one if there is room for it."""
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
            with suppress(OSError):  # a system without huge pages refuses, and small ones do
                piece.madvise(mmap.MADV_HUGEPAGE)
        self.pieces.append(piece)
        return piece

    def _free(self) -> list[int]:
        return [i for i in range(len(self.pieces)) if sys.getrefcount(self.pieces[i]) == _UNUSED]


_pool = CachingAllocator()


def fp32(*shape: int) -> Tensor:
    """Return an fp32 tensor on the CPU, whatever torch's defaults are; its numbers are whatever was there before."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor on the CPU whose numbers are whatever was there before."""
    return _pool.empty(shape, dtype)
