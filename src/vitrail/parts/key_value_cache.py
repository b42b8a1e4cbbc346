"""Cache of incremental decoding: keys and values in static buffers, or the state of a recurrent module."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vitrail.errors import VitrailError


class KeyValueCache:
    """Keys and values of the tokens decoded so far, in buffers that are allocated once.

    Args:
        capacity: tokens that each buffer has room for.

    Attributes:
        states: state `(B, ...)` of each recurrent module, such as a retention, whose size does not grow.

    Example:
        >>> import torch
        >>> cache, kv = KeyValueCache(4), torch.ones(1, 2, 3, 8)
        >>> cache.append("block 0", kv, kv, start=0)[0].shape
        torch.Size([1, 2, 3, 8])
        >>> cache.append("block 0", kv[:, :, :1], kv[:, :, :1], start=3)[0].shape
        torch.Size([1, 2, 4, 8])
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self._tokens: dict[Any, tuple[Tensor, Tensor]] = {}
        self._memory: dict[Any, tuple[Tensor, Tensor]] = {}
        self.states: dict[Any, Tensor] = {}

    def append(self, owner: object, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Store keys and values `(B, h, N, d)` at `start` and return those of all tokens so far, as views.

        Args:
            owner: module that the keys belong to.
            k: new keys.
            v: new values.
            start: position of the first new token.

        Raises:
            VitrailError: if there is no room for them.
        """
        end = start + k.shape[2]
        if end > self.capacity:
            raise VitrailError(f"The cache has room for {self.capacity} tokens, and token {end} was given.")
        if owner not in self._tokens:
            shape = (*k.shape[:2], self.capacity, k.shape[3])
            self._tokens[owner] = k.new_empty(shape), v.new_empty((*shape[:3], v.shape[3]))
        keys, values = self._tokens[owner]
        keys[:, :, start:end], values[:, :, start:end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def memory(self, owner: object, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return keys and values of the encoder output, computed by the first call."""
        if owner not in self._memory:
            self._memory[owner] = compute()
        return self._memory[owner]

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in the given order; a row may be repeated (beams) or left out."""
        for store in (self._tokens, self._memory):
            for owner, (k, v) in store.items():
                store[owner] = k.index_select(0, rows), v.index_select(0, rows)
        for owner, state in self.states.items():
            self.states[owner] = state.index_select(0, rows)
