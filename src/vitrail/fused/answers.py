"""Outputs of models in a trial: how they are computed, joined and compared."""

from collections.abc import Callable, Sequence, Sized
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from vitrail.fused.accuracy import Agreement, compare

Answer = Callable[[Any], Any]
"""Function from a batch of images, `(B, C, Y, X)`, to fp32 logits `(B, K)`, or to the outputs of another kind."""


class Logits:
    """Tensors with one row an image, such as logits or maps; another kind of answer is a subclass.

    A batch is a tensor, or has a length, a shape, slices and `split(size)` like one.

    Attributes:
        unit: plural of an input, in messages.
    """

    unit = "images"

    def turn(self, batch: Sized) -> int:
        """Return the inputs of a turn of the trial on a CPU."""
        return 1

    def of(self, model: nn.Module) -> Answer:
        """Return the function that computes a batch."""
        return model

    def in_bf16(self, model: nn.Module) -> Answer:
        """Return the plain model with bf16 weights; images and logits are fp32."""
        copy = deepcopy(model).to(torch.bfloat16)
        return lambda images: copy(images.to(torch.bfloat16)).float()

    def join(self, parts: Sequence[Any]) -> Any:
        """Return the outputs of some batches as one."""
        return torch.cat(list(parts))

    def compare(self, got: Any, expected: Any, precision: str) -> Agreement:
        """Compare the outputs of a candidate with those of the model in fp32."""
        return compare(got, expected, precision)


LOGITS = Logits()
