"""Masked words: the tokens to predict, drawn as a function of seed, epoch and sample."""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vitrail.data.stateless_rng import BatchRng
from vitrail.data.token_windows import IGNORED
from vitrail.layouts import TokenSequence
from vitrail.tasks.text_inputs import padded_layout


class MaskedBatch(NamedTuple):
    """Masked segments, padded on the right.

    Args:
        ids: `(B, N)`, some of them masked.
        lengths: `(B,)`.
        segments: `(B, N)`, 1 for the tokens of a second line.
        targets: `(B, N)`, the masked words, `IGNORED` elsewhere.
        follows: `(B,)`, 0 if the second line follows the first, 1 if not, `IGNORED` if there is one line.
        index: sample numbers `(B,)`.
    """

    ids: Tensor
    lengths: Tensor
    segments: Tensor
    targets: Tensor
    follows: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def weight(self) -> float:
        """Number of masked words."""
        return float((self.targets != IGNORED).sum())

    @property
    def words(self) -> Tensor:
        """The masked words `(1, M)`, row by row."""
        return self.targets[self.targets != IGNORED][None]

    @property
    def layout(self) -> TokenSequence:
        """Layout of the ids."""
        return padded_layout(self.ids, self.lengths).replace(segments=self.segments)

    def to(self, device: torch.device) -> Self:
        """Move all but the sample numbers."""
        return type(self)(*(value.to(device) for value in self[:-1]), self.index)  # pyright: ignore[reportCallIssue]

    def split(self, count: int) -> list[tuple[float, Self]]:
        """Cut into at most `count` micro-batches, none empty, each with its share of the masked words."""
        parts = [type(self)(*part) for part in zip(*(value.tensor_split(count) for value in self), strict=True)]
        whole = self.weight
        return [(part.weight / whole if whole else 1.0, part) for part in parts if len(part.ids)]

    def placeholder(self) -> Self:
        """Return one text of one token without a masked word."""
        zero = self.ids.new_zeros(1, 1)
        one = self.lengths.new_ones(1)
        return type(self)(zero, one, zero, zero + IGNORED, one * 0 + IGNORED, self.index.new_zeros(1))


class MaskRule(NamedTuple):
    """How words are masked.

    "BERT", section 3.1: of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay.

    Args:
        share: share of the tokens that are chosen.
        mask: id of the mask token.
        words: tokens of the vocabulary.
        special: ids that are never chosen.
    """

    share: float
    mask: int
    words: int
    special: frozenset[int]

    def apply(self, ids: np.ndarray, lengths: np.ndarray, draws: BatchRng) -> tuple[np.ndarray, np.ndarray]:
        """Return masked ids and targets, `(B, N)`; each text with a word has at least one target.

        Args:
            ids: `(B, N)`, padded.
            lengths: `(B,)`.
            draws: draws of each text.
        """
        width = ids.shape[1]
        free = (np.arange(width) < lengths[:, None]) & ~np.isin(ids, list(self.special))
        chance = np.where(free, draws.uniform("mask", count=width), 2.0)
        chosen = free & (chance < np.maximum(self.share, chance.min(axis=1, keepdims=True) * (1 + 1e-12)))
        kind = draws.uniform("kind", count=width)
        other = draws.integers("word", self.words, count=width)
        masked = np.where(chosen & (kind < 0.8), self.mask, np.where(chosen & (kind >= 0.9), other, ids))
        return masked, np.where(chosen, ids, IGNORED)
