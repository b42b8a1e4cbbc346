"""Stateless random numbers: every draw is a pure function of (seed, epoch, sample, purpose).

A stateful generator depends on the number of earlier draws, so a resumed training, or one with another number of
workers, would see other draws. Here a draw is a hash of its key, computed for a whole batch at once,
independent of the version of numpy or torch.
"""

from zlib import crc32

import numpy as np

_GOLDEN, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def splitmix64(x: np.ndarray) -> np.ndarray:
    """Map 64-bit words to 64-bit words that look random, one to one.

    The finaliser of SplitMix64. Reference: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).

    Example:
        >>> hex(int(splitmix64(to_uint64(0))[0]))  # the first word of the generator with seed 0
        '0xe220a8397b1dcdaf'
    """
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def to_uint64(value: int) -> np.ndarray:
    """Return any Python integer as a 64-bit word (an array of one, so that overflow wraps in silence).

    Example:
        >>> int(to_uint64(-1)[0]) == 2**64 - 1
        True
    """
    return np.array([value & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)


class BatchRng:
    """The draws of a batch of samples in one epoch.

    Args:
        seed: seed of the run.
        epoch: number of the epoch, or of the step for draws per batch.
        index: the sample indices, `(B,)`.

    Example:
        >>> import numpy as np
        >>> both = BatchRng(0, 3, np.array([7, 8])).uniform("flip")
        >>> alone = BatchRng(0, 3, np.array([8])).uniform("flip")
        >>> bool(both[1] == alone[0])
        True
    """

    def __init__(self, seed: int, epoch: int, index: np.ndarray) -> None:
        key = splitmix64(splitmix64(to_uint64(seed)) ^ to_uint64(epoch))
        self._keys = splitmix64(key + np.asarray(index).astype(np.uint64) * _SECOND)

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, chosen: np.ndarray) -> "BatchRng":
        """Return the draws of some samples of the batch."""
        part = object.__new__(BatchRng)
        part._keys = self._keys[chosen]
        return part

    def at(self, number: int) -> "BatchRng":
        """Return other draws of the same samples, such as those of the second step of a chain."""
        other = object.__new__(BatchRng)
        other._keys = splitmix64(self._keys ^ to_uint64(number))
        return other

    def words(self, purpose: str, count: int | None = None) -> np.ndarray:
        """Return 64 random bits a sample, `(B,)`, or `(B, count)`."""
        keys = splitmix64(self._keys ^ to_uint64(crc32(purpose.encode())))
        if count is None:
            return keys
        return splitmix64(keys[:, None] + np.arange(count, dtype=np.uint64) * _GOLDEN)

    def uniform(self, purpose: str, low: float = 0.0, high: float = 1.0, count: int | None = None) -> np.ndarray:
        """Return numbers in `[low, high)`, with 53 random bits."""
        return low + (high - low) * ((self.words(purpose, count) >> np.uint64(11)) * 2.0**-53)

    def integers(self, purpose: str, high: int, count: int | None = None) -> np.ndarray:
        """Return integers in `[0, high)`."""
        return (self.uniform(purpose, count=count) * high).astype(np.int64)

    def normal(self, purpose: str, count: int) -> np.ndarray:
        """Return `(B, count)` standard normal numbers, by the Box-Muller transform."""
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(purpose + " radius", count=half)))
        angle = self.uniform(purpose + " angle", high=2 * np.pi, count=half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]
