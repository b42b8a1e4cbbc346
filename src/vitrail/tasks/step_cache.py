"""A cache whose tensors are inputs and outputs of a program, in place of the buffers of a `KeyValueCache`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.layouts import TokenSequence, padding_bias
from vitrail.tasks.program import Sizes


class CacheEntry(NamedTuple):
    """One tensor of the cache of a step.

    Args:
        name: its name in the file, such as `keys_0`.
        shape: numbers, `batch`, and the dimension that grows: `past` with the new tokens, `memory` with the source.
        dtype: type of its numbers.
    """

    name: str
    shape: tuple[str | int, ...]
    dtype: torch.dtype

    @property
    def grows(self) -> str | None:
        """Dimension that grows, or None: a state keeps its size."""
        return next((each for each in self.shape[1:] if isinstance(each, str)), None)

    def grown(self) -> tuple[str | int, ...]:
        """Return the shape after a step, such as `("batch", 4, "past+length", 8)`."""
        added = {"past": "past+length", "memory": "memory+source"}
        return tuple(added.get(each, each) if isinstance(each, str) else each for each in self.shape)

    def empty(self, rows: int) -> Tensor:
        """Return the entry before the first step: nothing remembered."""
        sizes = {"batch": rows, "past": 0, "memory": 0}
        return torch.zeros([sizes[each] if isinstance(each, str) else each for each in self.shape], dtype=self.dtype)

    def drawn(self, sizes: Sizes, generator: torch.Generator) -> Tensor:
        """Return random numbers for sizes of the named dimensions."""
        shape = [sizes[each] if isinstance(each, str) else each for each in self.shape]
        return torch.randn(shape, generator=generator).to(self.dtype)


class StepCache:
    """Cache of one step: reads the given tensors in the order in which the model asks for them.

    Without given tensors it records what the model keeps, so that the program can be described.

    Args:
        given: tensors before the step; None to record.

    Attributes:
        found: tensors after the step, in the same order.
        names: name and growing dimension of each.
        memory_tokens: tokens of the memory, those of earlier steps included.
    """

    def __init__(self, given: Sequence[Tensor] | None = None):
        self._given: Iterator[Tensor] | None = None if given is None else iter(given)
        self.found: list[Tensor] = []
        self.names: list[tuple[str, int | None]] = []
        self.memory_tokens: Any = 0
        self.states = _States(self)

    def take(self) -> Tensor | None:
        """Return the next given tensor, None while recording."""
        return None if self._given is None else next(self._given)

    def keep(self, name: str, axis: int | None, value: Tensor) -> None:
        """Keep a tensor for the next step."""
        self.names.append((name, axis))
        self.found.append(value)

    def append(self, owner: object, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of all tokens so far, as `KeyValueCache.append`."""
        k, v = self._joined(k), self._joined(v)
        self.keep("keys", 2, k)
        self.keep("values", 2, v)
        return k, v

    def memory(self, owner: object, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return keys and values of the whole source: those of earlier steps, and of the source of this one."""
        k, v = (self._joined(each) for each in compute())
        self.memory_tokens = k.shape[2]
        self.keep("memory_keys", 2, k)
        self.keep("memory_values", 2, v)
        return k, v

    def _joined(self, new: Tensor) -> Tensor:
        before = self.take()
        return new if before is None else torch.cat([before, new], dim=2)


class _States:
    """States of recurrent modules, as the dictionary of a `KeyValueCache`."""

    def __init__(self, cache: StepCache):
        self._cache = cache

    def get(self, owner: Any, default: Tensor) -> Tensor:
        """Return the state before the step."""
        found = self._cache.take()
        return default if found is None else found

    def __setitem__(self, owner: Any, value: Tensor) -> None:
        self._cache.keep("state", None, value)


@dataclass(frozen=True, eq=False)
class StepLayout(TokenSequence):
    """Layout of a step whose memory was read in part by earlier steps: its padding is that of the whole."""

    def memory_padding(self, like: Tensor) -> Tensor | None:
        """Return `(B, 1, 1, M)`, -inf for padded tokens of the whole memory."""
        return padding_bias(self.memory_lengths, self.cache.memory_tokens, like)


def described_entries(cache: StepCache) -> tuple[CacheEntry, ...]:
    """Return the entries that a recording cache found.

    Example:
        >>> cache = StepCache()
        >>> _ = cache.append(None, torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8), start=0)
        >>> [(each.name, each.shape) for each in described_entries(cache)]
        [('keys_0', ('batch', 2, 'past', 8)), ('values_0', ('batch', 2, 'past', 8))]
    """
    entries, counts = [], dict[str, int]()
    for (name, axis), value in zip(cache.names, cache.found, strict=True):
        shape: list[str | int] = ["batch", *value.shape[1:]]
        if axis is not None:
            shape[axis] = "memory" if name.startswith("memory") else "past"
        number = counts[name] = counts.get(name, -1) + 1
        entries.append(CacheEntry(f"{name}_{number}", tuple(shape), value.dtype))
    return tuple(entries)
