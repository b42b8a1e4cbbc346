"""Batches of sequences of like length: sorted and cut once, then shuffled, as a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


@dataclass(frozen=True)
class BucketedSampler:
    """Sampler of the global steps of an epoch, each of samples of like length, and of this rank's share of them.

    Samples are sorted by length, equal lengths by a hash of seed and number, and cut into batches once; an epoch is a
    permutation of the batches. So a step is computed without those before it, and a run resumes anywhere. No sample is
    dropped, since the last of the sorted batch would always be the longest: the last batch may be smaller.

    Args:
        lengths: length of each sample.
        batch_size: samples a step, over all ranks.
        seed: seed of the shuffle.
        shuffle: False keeps the batches in the order of length, the longest first (evaluation).
        rank: rank of this process.
        world: world size.

    Raises:
        VitrailError: the sizes do not fit each other.

    Example:
        >>> order = BucketedSampler([3, 9, 4, 8], batch_size=2, shuffle=False)
        >>> [sorted(batch.tolist()) for batch in order.batches(epoch=0)]
        [[1, 3], [0, 2]]
    """

    lengths: Sequence[int]
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not len(self.lengths):
            raise VitrailError(
                f"A batch of {self.batch_size} from {len(self.lengths)} samples: both must be at least 1."
            )
        if not 0 <= self.rank < self.world:
            raise VitrailError(f"Rank {self.rank} does not exist among {self.world} processes.")

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return -(-len(self.lengths) // self.batch_size)

    @cached_property
    def _cut(self) -> list[np.ndarray]:
        numbers = np.arange(len(self.lengths))
        ties = BatchRng(self.seed, 0, numbers).words("bucket")
        order = np.lexsort((ties, -np.asarray(self.lengths)))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[np.ndarray]:
        """Yield this rank's sample numbers, step by step, from `start_step` to the end of the epoch."""
        if not 0 <= start_step <= self.steps:
            raise VitrailError(f"Step {start_step} lies outside an epoch of {self.steps} steps.")
        steps = np.arange(self.steps)
        if self.shuffle:
            steps = np.argsort(BatchRng(self.seed, epoch, steps).words("order"), kind="stable")
        for step in steps[start_step:]:
            yield np.array_split(self._cut[step], self.world)[self.rank]
