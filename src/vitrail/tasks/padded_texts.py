"""A padded batch of texts, as the selection of the implementation takes it."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vitrail.fused.answers import Answer, Logits
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


def read_texts(model: nn.Module, texts: PaddedTexts) -> Tensor:
    """Return the output of a model for a batch."""
    return model(texts.ids, texts.layout)


class TextAnswers(Logits):
    """Outputs with one row a text.

    Args:
        call: from a model and a batch to outputs `(B, K)`.
    """

    unit = "texts"

    def __init__(self, call: Callable[[nn.Module, PaddedTexts], Tensor] = read_texts):
        self.call = call

    def turn(self, batch: PaddedTexts) -> int:
        """Return the texts of a turn."""
        return max(1, TURN_TOKENS // batch.ids.shape[1])

    def of(self, model: nn.Module) -> Answer:
        """Return the function that computes a batch."""
        return partial(self.call, model)

    def in_bf16(self, model: nn.Module) -> Answer:
        """Return the plain model with bf16 weights; outputs are fp32."""
        copy = deepcopy(model).to(torch.bfloat16)
        return lambda batch: self.call(copy, batch).float()
