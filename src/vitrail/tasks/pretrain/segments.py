"""Segments of a text for pretraining: lines, or pairs of lines of which every second one follows the first."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from vitrail.data.bucketed_sampler import BucketedSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.text_streams import TextStream
from vitrail.data.token_windows import IGNORED
from vitrail.errors import DataError
from vitrail.tasks.pretrain.masking import MaskedBatch, MaskRule
from vitrail.tasks.text_inputs import pad_ids
from vitrail.text.vocabulary import Vocabulary


class SegmentSet:
    """Token ids of the lines of a text, cut to a length; empty lines are left out.

    Args:
        stream: the text.
        vocabulary: the vocabulary.
        longest: most tokens of a segment, without special tokens.

    Raises:
        DataError: no line has a token.
    """

    def __init__(self, stream: TextStream, vocabulary: Vocabulary, longest: int):
        self.name = stream.name
        lines = [line for line in stream.text.split("\n") if line.strip()]
        found = vocabulary.encode(lines, special=False).ids if lines else ()
        pieces = [(line[at : at + longest], at + longest >= len(line)) for line in found
                  for at in range(0, len(line), longest)]  # fmt: skip
        self.segments: list[tuple[int, ...]] = [piece for piece, _ in pieces]
        if not self.segments:
            raise DataError(f"{stream.name} has no line with a word.")

    @property
    def ids(self) -> Sequence[str]:
        """Name of each segment."""
        return [f"segment {number}" for number in range(len(self.segments))]

    def __len__(self) -> int:
        return len(self.segments)


class Frame(NamedTuple):
    """Ids of the tokens around segments: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`."""

    first: int
    end: int


class MaskedLineLoader:
    """Batches of masked segments, epoch by epoch; a validation masks the same words every time.

    Args:
        dataset: the segments.
        frame: special tokens.
        rule: how words are masked.
        order: sampler of the steps.
        pairs: whether a second segment is joined: in half of the pairs the next, in the others a random one.
        fixed: whether all epochs are alike.
    """

    def __init__(
        self, dataset: SegmentSet, frame: Frame, rule: MaskRule, order: BucketedSampler, pairs: bool, fixed: bool
    ):
        self.dataset, self.frame, self.rule, self.order = dataset, frame, rule, order
        self.pairs, self.fixed = pairs, fixed

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[MaskedBatch]:
        """Yield this rank's batches from `start_step` to the end of the epoch."""
        for index in self.order.batches(epoch, start_step):
            draws = BatchRng(self.order.seed, 0 if self.fixed else epoch, index)
            second, follows = self._second(index, draws)
            texts = [self._join(a, b) for a, b in zip(index, second, strict=True)]
            ids, lengths = pad_ids(texts)
            masked, targets = self.rule.apply(ids.numpy(), lengths.numpy(), draws)
            starts = [len(self.dataset.segments[a]) + 2 for a in index]
            segments = torch.arange(ids.shape[1]) >= torch.tensor(starts, dtype=torch.long).reshape(-1, 1)
            segments = segments & (torch.arange(ids.shape[1]) < lengths[:, None]) & self.pairs
            arrays = (torch.from_numpy(value) for value in (masked, targets, follows))
            masked_ids, words, next_line = arrays
            yield MaskedBatch(masked_ids, lengths, segments.long(), words, next_line, torch.from_numpy(index))

    def _second(self, index: np.ndarray, draws: BatchRng) -> tuple[list[int | None], np.ndarray]:
        """Return the second segment of each pair, and 0 if it follows the first, 1 if it is a random one."""
        count = len(self.dataset)
        if not self.pairs or count < 3:
            return [None] * len(index), np.full(len(index), IGNORED)
        random = (draws.uniform("follows") < 0.5) | (index == count - 1)
        shift = 2 + draws.integers("other", count - 2)  # neither the segment itself nor the next
        second = np.where(random, (index + shift) % count, (index + 1) % count)
        return second.tolist(), random.astype(np.int64)

    def _join(self, a: int, b: int | None) -> list[int]:
        segments, frame = self.dataset.segments, self.frame
        one = [frame.first, *segments[a], frame.end]
        return one if b is None else [*one, *segments[b], frame.end]
