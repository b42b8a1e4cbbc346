"""Batches of sentence pairs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from vitrail.data.pairs import SentencePairs
from vitrail.data.token_batches import TokenBatches
from vitrail.tasks.text_inputs import pad_ids


class PairBatch(NamedTuple):
    """Padded sources `(B, M)` and targets `(B, N)` with start and end token, their lengths `(B,)`, sample numbers.

    Args:
        source: token ids.
        source_lengths: tokens of each source.
        target: token ids.
        target_lengths: tokens of each target, start and end included.
        index: sample numbers.
        steps: decoding steps of a validation if they are fixed, as several processes need; 0 to stop at the last end.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    steps: int = 0

    @property
    def weight(self) -> float:
        """Number of target tokens to predict: words and ends."""
        return float(self.target_lengths.sum()) - len(self.index)

    def to(self, device: torch.device) -> Self:
        """Move the tensors that the model reads."""
        names = ("source", "source_lengths", "target", "target_lengths")
        return self._replace(**{name: getattr(self, name).to(device) for name in names})

    def split(self, count: int) -> list[tuple[float, Self]]:
        """Cut into at most `count` micro-batches, none empty, each with its share of the target tokens."""
        whole = self.weight
        cut = zip(*(value.tensor_split(count) for value in self[:5]), strict=True)
        parts = [self._make([*part, self.steps]) for part in cut]
        return [(part.weight / whole if whole else 1.0, part) for part in parts if len(part.index)]

    def placeholder(self) -> Self:
        """Return a pair of one token each, with nothing to predict."""
        one = self.source_lengths.new_ones(1)
        return type(self)(one[:, None], one, one[:, None], one, self.index.new_zeros(1), self.steps)


class PairLoader:
    """Batches of sentence pairs, epoch by epoch.

    Args:
        dataset: the pairs.
        sources: token ids of each source, with the end token.
        targets: token ids of each target, with start and end token.
        order: the batches.
        fixed: whether a validation decodes a fixed number of steps.
    """

    def __init__(
        self,
        dataset: SentencePairs,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        order: TokenBatches,
        fixed: bool = False,
    ):
        self.dataset, self.sources, self.targets, self.order, self.fixed = dataset, sources, targets, order, fixed

    @property
    def steps(self) -> int:
        """Batches an epoch, the same on every rank."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[PairBatch]:
        """Yield this rank's batches from `start_step` to the end of the epoch."""
        steps = most_new(max(map(len, self.sources))) if self.fixed else 0
        for index in self.order.batches(epoch, start_step):
            source = pad_ids([self.sources[number] for number in index])
            target = pad_ids([self.targets[number] for number in index])
            yield PairBatch(*source, *target, torch.from_numpy(index), steps)


def most_new(source: int) -> int:
    """Return the most tokens of a translation, for a source of so many tokens rounded up to a multiple of 8.

    Example:
        >>> most_new(8), most_new(9)
        (26, 42)
    """
    return 2 * (-(-source // 8) * 8) + 10
