"""Exponential moving average of the weights, less noisy than those of the last step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """Exponential moving average of a model's parameters and floating buffers.

    average <- d * average + (1 - d) * weights, with d = min(decay, (1 + t) / (10 + t)) after t updates, so that a short
    run is not dominated by its initial weights.

    Under FSDP each process averages its own shards; the average is elementwise, so that is exact.

    Args:
        model: model to average.
        decay: upper limit of d.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> ema = Ema(model, decay=0.9)
        >>> with ema.applied():
        ...     answer = model(torch.zeros(1, 2))
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.live = [_local(value) for value in _floating(model)]
        self.average = [value.clone() for value in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after update number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, self.live, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def restart(self) -> None:
        """Reset the average to the current weights."""
        copy_all(self.live, self.average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the average into the model inside the block; the weights are restored after it, bit for bit."""
        kept = [value.clone() for value in self.live]
        copy_all(self.average, self.live)
        try:
            yield
        finally:
            copy_all(kept, self.live)


class NoEma:
    """Null object for `Ema`: the weights are used as they are."""

    def update(self, step: int) -> None:
        """Do nothing."""

    def restart(self) -> None:
        """Do nothing."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Change nothing."""
        yield


@torch.no_grad()
def copy_all(source: list[Tensor], target: list[Tensor]) -> None:
    """Copy each tensor of `source` to the corresponding one of `target`, in one call."""
    torch._foreach_copy_(target, source)  # pyright: ignore[reportPrivateImportUsage]


def _floating(model: nn.Module) -> list[Tensor]:
    values = [*model.parameters(), *model.buffers()]
    return [value.detach() for value in values if value.is_floating_point()]


def _local(value: Tensor) -> Tensor:
    """Return this rank's shard of a tensor, sharing its memory."""
    return value.to_local() if isinstance(value, DTensor) else value
