"""Batches of sequences by tokens: samples of similar lengths together, as many as fit into a token budget."""

from collections.abc import Iterator

import numpy as np

from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


class TokenBatches:
    """Batches whose padded tensors hold at most a given number of tokens, in an order that is a function of the epoch.

    The samples are sorted by length once and cut into batches of at most `budget / longest` samples. An epoch shuffles
    samples of equal lengths (rounded up to multiples of `width`), so batches have other members but the same sizes, and
    then the batches. A sample above the budget is a batch of its own.

    Args:
        lengths: tokens of each sample, `(B,)`, or `(B, S)` for several sides, such as target and source; the first side
            is padded least.
        budget: tokens of the longest side of a batch, padding included, over all ranks.
        seed: seed of the shuffle.
        shuffle: False keeps the batches sorted (evaluation).
        width: lengths that differ by less are shuffled as equal.
        rank: rank of this process.
        world: world size; the ranks share each batch in contiguous pieces as equal as can be.

    Raises:
        VitrailError: there is no sample, or the budget has no token.

    Example:
        >>> order = TokenBatches(np.array([3, 1, 4, 1]), budget=4, shuffle=False, width=1)
        >>> [batch.tolist() for batch in order.batches()]
        [[1, 3], [0], [2]]
    """

    def __init__(
        self,
        lengths: np.ndarray,
        budget: int,
        seed: int = 0,
        shuffle: bool = True,
        width: int = 3,
        rank: int = 0,
        world: int = 1,
    ):
        lengths = np.asarray(lengths).reshape(len(lengths), -1)
        if not len(lengths) or budget < 1:
            raise VitrailError(f"{len(lengths)} samples in batches of {budget} tokens: both must be at least 1.")
        self.seed, self.shuffle, self.rank, self.world = seed, shuffle, rank, world
        rounded = -(-lengths // width) * width if shuffle else lengths
        rounded[:, 0] = lengths[:, 0]
        self._group = _serpentine(rounded)
        order = np.argsort(self._group, kind="stable")
        self._cuts = _cut(rounded[order].max(axis=1), budget)

    @property
    def steps(self) -> int:
        """Batches an epoch, the same in each epoch and on each rank."""
        return len(self._cuts) - 1

    def batches(self, epoch: int = 0, start_step: int = 0) -> Iterator[np.ndarray]:
        """Yield this rank's sample numbers, batch by batch, from `start_step` to the end of the epoch."""
        if not 0 <= start_step <= self.steps:
            raise VitrailError(f"Step {start_step} is outside an epoch of {self.steps} steps.")
        samples, steps = np.argsort(self._group, kind="stable"), np.arange(self.steps)
        if self.shuffle:
            draws = BatchRng(self.seed, epoch, np.arange(len(samples))).words("order")
            samples = np.lexsort((draws, self._group))
            steps = np.argsort(BatchRng(self.seed, epoch, steps).words("batch order"), kind="stable")
        for step in steps[start_step:]:
            together = samples[self._cuts[step] : self._cuts[step + 1]]
            yield np.array_split(together, self.world)[self.rank]


def _serpentine(lengths: np.ndarray) -> np.ndarray:
    """Number the combinations of lengths, sorted by the first side, the second up and down in turns.

    Neighbours then differ little on both sides also where the first side changes.
    """
    sides = [lengths[:, 0]] + [np.where(lengths[:, 0] % 2 == 0, side, -side) for side in lengths[:, 1:].T]
    combinations = np.stack(sides, axis=1)
    return np.unique(combinations, axis=0, return_inverse=True)[1].reshape(-1)


def _cut(longest: np.ndarray, budget: int) -> np.ndarray:
    """Cut sorted samples into batches of at most `budget` padded tokens; return where they begin, and the end."""
    cuts, most = [0], 0
    for place, length in enumerate(longest.tolist()):
        most = max(most, length)
        if place > cuts[-1] and (place + 1 - cuts[-1]) * most > budget:
            cuts.append(place)
            most = length
    return np.array([*cuts, len(longest)])
