"""A padded batch of texts, as the selection of the implementation takes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitrail.fused.auto_optimize import InputKind
from vitrail.layouts import TokenSequence
from vitrail.tasks.text_inputs import pad_ids, padded_layout

TURN_TOKENS = 512
"""Tokens of a turn of the trial: single short texts do not fill the processor, and no job has them."""


@dataclass(frozen=True)
class PaddedTexts:
    """Token ids padded on the right.

    Args:
        ids: `(B, N)`.
        lengths: `(B,)`.
    """

    ids: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], device: torch.device) -> "PaddedTexts":
        """Pad the token ids of texts.

        Example:
            >>> len(PaddedTexts.of([[5, 6], [7]], torch.device("cpu")))
            2
        """
        return cls(*(value.to(device) for value in pad_ids(ids)))

    @property
    def layout(self) -> TokenSequence:
        """Layout of the ids."""
        return padded_layout(self.ids, self.lengths)

    @property
    def shape(self) -> tuple[int, int]:
        """Texts, and tokens rounded up to a power of two: measured speeds of near lengths are one."""
        return len(self.ids), 1 << (self.ids.shape[1] - 1).bit_length()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "PaddedTexts":
        return PaddedTexts(self.ids[rows], self.lengths[rows])

    def split(self, size: int) -> list["PaddedTexts"]:
        """Cut into parts of at most `size` texts."""
        return [self[start : start + size] for start in range(0, len(self), size)]


def read_texts(model: Any, texts: PaddedTexts) -> Tensor:
    """Return the output of a model for a batch."""
    return model(texts.ids, texts.layout)


def text_kind(call: Callable[[Any, PaddedTexts], Tensor] = read_texts) -> InputKind:
    """Return texts as inputs of an `InferenceRunner`.

    Args:
        call: from a model and a batch to outputs `(B, K)`.
    """
    return InputKind("texts", call, lambda texts: max(1, TURN_TOKENS // texts.ids.shape[1]))
