"""The order of samples: a pure function of seed, epoch and step.

The sampler is stateless: step `s` of epoch `e` is computed without iterating over the steps before it, so a training
resumes anywhere, and the samples of a step do not depend on the world size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import VitrailError


@dataclass(frozen=True)
class ResumableSampler:
    """Sampler of the global steps of an epoch and of this rank's share of them.

    Step `s` is positions `[s * batch_size, (s + 1) * batch_size)` of the epoch's permutation; the ranks share a step in
    contiguous pieces as equal as can be. Every rank has the same number of steps. Without `drop_last` no sample is lost
    or seen twice, so the last step may leave a rank an empty piece.

    Args:
        length: number of samples.
        batch_size: samples a step, over all ranks.
        seed: seed of the shuffle.
        shuffle: False keeps the order of the data set (evaluation).
        drop_last: drop the last, smaller step (training).
        rank: rank of this process.
        world: world size.
        labels: class of each sample, if all classes are to be drawn equally often.

    Raises:
        VitrailError: the sizes do not fit each other.

    Example:
        >>> order = ResumableSampler(10, batch_size=4, shuffle=False, drop_last=False)
        >>> [batch.tolist() for batch in order.batches(epoch=0, start_step=1)]
        [[4, 5, 6, 7], [8, 9]]
    """

    length: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    rank: int = 0
    world: int = 1
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.length < 1:
            raise VitrailError(f"A batch of {self.batch_size} from {self.length} samples: both must be at least 1.")
        if not 0 <= self.rank < self.world:
            raise VitrailError(f"Rank {self.rank} does not exist among {self.world} processes.")
        if self.drop_last and self.batch_size % self.world:
            raise VitrailError(
                f"The global batch of {self.batch_size} cannot be shared by {self.world} processes.\n"
                f"Use a multiple of {self.world}."
            )
        if self.drop_last and self.length < self.batch_size:
            raise VitrailError(
                f"A batch of {self.batch_size} is larger than the data set of {self.length} samples.\n"
                f"Use a batch of at most {self.length}."
            )

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def permutation(self, epoch: int) -> np.ndarray:
        """Return the sample numbers in the order of this epoch, `(length,)`.

        With `labels`, the k-th repetition of sample i in the epoch is the number `i + k * length`.
        """
        samples = np.arange(self.length)
        if self.labels is not None:
            samples = self._balanced(epoch)
            return samples[
                np.argsort(BatchRng(self.seed, epoch, np.arange(self.length)).words("places"), kind="stable")
            ]
        return (
            np.argsort(BatchRng(self.seed, epoch, samples).words("order"), kind="stable") if self.shuffle else samples
        )

    def _balanced(self, epoch: int) -> np.ndarray:
        """Return samples of all classes in equal numbers (to one), small classes repeated, large ones in part."""
        labels = np.array(self.labels)
        present = np.unique(labels)
        chosen = []
        for place, label in enumerate(present):
            members = np.flatnonzero(labels == label)
            members = members[np.argsort(BatchRng(self.seed, epoch, members).words("order"), kind="stable")]
            wanted = self.length // len(present) + (place < self.length % len(present))
            chosen.append(np.resize(members, wanted) + np.arange(wanted) // len(members) * self.length)
        return np.concatenate(chosen)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[np.ndarray]:
        """Yield this rank's sample numbers, step by step, from `start_step` to the end of the epoch."""
        if not 0 <= start_step <= self.steps:
            raise VitrailError(f"Step {start_step} lies outside an epoch of {self.steps} steps.")
        samples = self.permutation(epoch)
        for step in range(start_step, self.steps):
            together = samples[step * self.batch_size : (step + 1) * self.batch_size]
            yield np.array_split(together, self.world)[self.rank]
