"""Windows of a token stream: inputs and the tokens that follow them."""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vitrail.data.sampler import ResumableSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import DataError

IGNORED = -100
"""Target of a position that is not predicted."""


class WindowBatch(NamedTuple):
    """Token ids `(B, N)`, the token after each `(B, N)` or `IGNORED`, and window numbers `(B,)`."""

    ids: Tensor
    targets: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def weight(self) -> float:
        """Number of predicted tokens."""
        return float((self.targets != IGNORED).sum())

    def to(self, device: torch.device) -> Self:
        """Move ids and targets."""
        return self._replace(ids=self.ids.to(device), targets=self.targets.to(device))

    def split(self, count: int) -> list[tuple[float, Self]]:
        """Cut into at most `count` micro-batches, none empty, each with its share of the predicted tokens."""
        parts = [type(self)(*part) for part in zip(*(value.tensor_split(count) for value in self), strict=True)]
        whole = self.weight
        return [(part.weight / whole if whole else 1.0, part) for part in parts if len(part.ids)]

    def placeholder(self) -> Self:
        """Return one window of one token without a target."""
        zero = self.ids.new_zeros(1, 1)
        return type(self)(zero, zero + IGNORED, self.index.new_zeros(1))


class TrainWindows:
    """Windows that cover a stream once an epoch, from an offset that is drawn for each epoch, in shuffled order.

    Args:
        stream: token ids.
        context: tokens N of a window.
        batch: windows of a step, over all ranks.
        seed: seed of offsets and order.
        rank: rank of this process.
        world: world size.

    Raises:
        DataError: the stream is shorter than two windows.
    """

    def __init__(self, stream: Tensor, context: int, batch: int, seed: int = 0, rank: int = 0, world: int = 1):
        count = (len(stream) - context) // context
        if count < 1:
            raise DataError(
                f"The text has {len(stream):,} tokens, and windows have {context}: at least {2 * context} are needed.\n"
                "Use a longer text, or a smaller --context."
            )
        self.stream, self.context, self.count = stream, context, count
        self.order = ResumableSampler(count, min(batch, count // world * world), seed, rank=rank, world=world)

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[WindowBatch]:
        """Yield this rank's batches from `start_step` to the end of the epoch."""
        offset = int(BatchRng(self.order.seed, epoch, np.zeros(1, dtype=int)).integers("offset", self.context)[0])
        within = torch.arange(self.context)
        for index in self.order.batches(epoch, start_step):
            places = offset + torch.from_numpy(index)[:, None] * self.context + within
            yield WindowBatch(self.stream[places].long(), self.stream[places + 1].long(), torch.from_numpy(index))


class EvalWindows:
    """Windows in order that predict each token of a stream but the first exactly once.

    Args:
        stream: token ids.
        context: tokens N of a window.
        stride: tokens between the starts of two windows; below `context` each token but those of the first window has
            at least `context - stride` tokens before it.
        batch: windows of a step, over all ranks.
        rank: rank of this process.
        world: world size.

    Example:
        >>> [batch] = EvalWindows(torch.arange(7), context=4, stride=2, batch=9).epoch()
        >>> batch.targets.tolist()
        [[1, 2, 3, 4], [-100, -100, 5, 6]]
    """

    def __init__(self, stream: Tensor, context: int, stride: int, batch: int, rank: int = 0, world: int = 1):
        if len(stream) < 2:
            raise DataError(f"The text has {len(stream)} tokens; at least two are needed to predict one.")
        self.stream, self.context, self.stride = stream, context, stride
        self.count = 1 + max(0, -(-(len(stream) - 1 - context) // stride))
        self.order = ResumableSampler(self.count, batch, shuffle=False, drop_last=False, rank=rank, world=world)

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[WindowBatch]:
        """Yield this rank's batches."""
        within, last = torch.arange(self.context), len(self.stream) - 1
        for index in self.order.batches(epoch, start_step):
            numbers = torch.from_numpy(index)
            places = numbers[:, None] * self.stride + within
            targets = self.stream[(places + 1).clamp(max=last)].long()
            seen = (within < self.context - self.stride)[None] & (numbers > 0)[:, None]
            targets = targets.masked_fill(seen | (places + 1 > last), IGNORED)
            yield WindowBatch(self.stream[places.clamp(max=last)].long(), targets, numbers)
