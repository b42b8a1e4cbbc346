"""Layouts of tokens that are no grid: text and point sets.

A layout is the small value passed with `(B, N, C)` tokens through every mixer, block and stage. `Grid` (images) holds
three integers, compared by value. `TokenSequence` and `PointSet` hold tensors and are equal only to themselves. All
share `prefix`, `tokens` and `key_padding`, so a mixer that reads nothing else accepts each of them.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Layout(Protocol):
    """Common interface of `Grid`, `TokenSequence` and `PointSet` for mixers."""

    @property
    def prefix(self) -> int:
        """Number of tokens without a place (class, registers), which come first."""
        ...

    @property
    def tokens(self) -> int:
        """Length N of the token sequence, prefix and padding included."""
        ...

    def key_padding(self, like: Tensor) -> Tensor | None:
        """Return an addend to attention scores, -inf for padded keys; None if there is no padding."""
        ...


def padding_bias(lengths: Tensor | None, tokens: int, like: Tensor) -> Tensor | None:
    """Return `(B, 1, 1, N)`: 0 for the first `lengths[b]` tokens, -inf for the others; None without `lengths`.

    Example:
        >>> padding_bias(torch.tensor([1, 2]), 2, torch.zeros(1)).flatten(1).tolist()
        [[0.0, -inf], [0.0, 0.0]]
    """
    if lengths is None:
        return None
    padded = torch.arange(tokens, device=lengths.device) >= lengths[:, None]  # (B, N)
    bias = torch.zeros(padded.shape, dtype=like.dtype, device=padded.device).masked_fill(padded, -torch.inf)
    return bias[:, None, None].to(like.device)


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """Layout of a batch of token sequences, padded on the right.

    Args:
        length: tokens N of the sequences, padding included.
        lengths: `(B,)` tokens of each sequence without padding, at least 1; None if none is padded.
        start: position of the first token (with a key-value cache, the number of cached tokens).
        memory: encoder output that cross-attention reads, `(B, M, C)`.
        memory_lengths: `(B,)` tokens of each memory without padding; None if none is padded.
        cache: key-value cache of incremental decoding.
        segments: `(B, N)` number of the sentence that each token belongs to; None if there is only one.

    Example:
        >>> layout = TokenSequence(3, lengths=torch.tensor([3, 1]))
        >>> layout.key_padding(torch.zeros(1)).flatten(1).tolist()
        [[0.0, 0.0, 0.0], [0.0, -inf, -inf]]
    """

    length: int
    lengths: Tensor | None = field(default=None, repr=False)
    start: int = 0
    memory: Tensor | None = field(default=None, repr=False)
    memory_lengths: Tensor | None = field(default=None, repr=False)
    cache: Any = field(default=None, repr=False)
    segments: Tensor | None = field(default=None, repr=False)
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Length N of the sequences."""
        return self.length

    def cells(self, x: Tensor) -> Tensor:
        """View `(B, N, C)` tokens as a `(B, 1, N, C)` map of one row."""
        return x[:, None, self.prefix :]

    def key_padding(self, like: Tensor) -> Tensor | None:
        """Return `(B, 1, 1, N)`, -inf for padded keys; None if there is no padding."""
        return padding_bias(self.lengths, self.length, like)

    def memory_padding(self, like: Tensor) -> Tensor | None:
        """Return `(B, 1, 1, M)`, -inf for padded tokens of the memory; None if there is no padding."""
        return None if self.memory is None else padding_bias(self.memory_lengths, self.memory.shape[1], like)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class PointSet:
    """Layout of a batch of point sets, padded at the end.

    Args:
        coordinates: `(B, N, D)`, D is 3 in space.
        lengths: `(B,)` points of each set without padding, at least 1; None if none is padded.

    Example:
        >>> PointSet(torch.zeros(2, 5, 3)).tokens
        5
    """

    coordinates: Tensor = field(repr=False)
    lengths: Tensor | None = field(default=None, repr=False)
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Number N of tokens: the prefix and one for each point."""
        return self.prefix + self.coordinates.shape[1]

    def cells(self, x: Tensor) -> Tensor:
        """View the points of `(B, N, C)` tokens as a `(B, 1, N, C)` map of one row."""
        return x[:, None, self.prefix :]

    def key_padding(self, like: Tensor) -> Tensor | None:
        """Return `(B, 1, 1, N)`, -inf for padded keys; None if there is no padding."""
        lengths = None if self.lengths is None else self.lengths + self.prefix
        return padding_bias(lengths, self.tokens, like)
