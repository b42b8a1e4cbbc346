"""Averages of the weights, less noisy than those of the last step: exponential, or of the last epochs."""

from collections import deque
from collections.abc import Callable, Iterator
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

    def tables(self, weights: Callable[[], dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return copies of the average for a training state; `weights` returns the model's tensors."""
        with self.applied():
            return {"ema": {name: value.clone() for name, value in weights().items()}}

    def load(self, step: int, fill: Callable[[str], None]) -> None:
        """Read the average of a state; `fill` loads a table into the model."""
        fill("ema")
        self.restart()

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


class LastAverage:
    """Mean of the weights after each of the last `count` epochs.

    The average of the last checkpoints of "Attention Is All You Need", section 6.1, at every epoch: each validation
    sees the mean of the weights at the ends of the epochs up to it.

    Args:
        model: model to average.
        count: number of epochs.
        every: updates of an epoch.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> average = LastAverage(model, count=2, every=1)
        >>> for step in range(3):
        ...     _ = nn.init.constant_(model.weight, step)
        ...     average.update(step)
        >>> with average.applied():
        ...     print(model.weight.item())
        1.5
    """

    def __init__(self, model: nn.Module, count: int, every: int):
        self.every = every
        self.live = [_local(value) for value in _floating(model)]
        self.kept: deque[list[Tensor]] = deque(maxlen=count)

    def update(self, step: int) -> None:
        """Keep the weights after update number `step`, counted from 0, if it ends an epoch."""
        if (step + 1) % self.every == 0:
            self.kept.append([value.clone() for value in self.live])

    def tables(self, weights: Callable[[], dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return copies of all kept weights for a training state."""
        now, found = [value.clone() for value in self.live], {}
        for number, values in enumerate(self.kept):
            copy_all(values, self.live)
            found[f"average-{number}"] = {name: value.clone() for name, value in weights().items()}
        copy_all(now, self.live)
        return found

    def load(self, step: int, fill: Callable[[str], None]) -> None:
        """Read the kept weights of a state after `step` updates."""
        self.kept.clear()
        for number in range(min(self.kept.maxlen or 0, step // self.every)):
            fill(f"average-{number}")
            self.kept.append([value.clone() for value in self.live])

    def restart(self) -> None:
        """Forget the kept weights."""
        self.kept.clear()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the mean into the model inside the block; before the end of an epoch nothing changes."""
        now = [value.clone() for value in self.live]
        if self.kept:
            mean = [torch.stack(values).mean(dim=0) for values in zip(*self.kept, strict=True)]
            copy_all(mean, self.live)
        try:
            yield
        finally:
            copy_all(now, self.live)


class NoEma:
    """Null object for `Ema`: the weights are used as they are."""

    def tables(self, weights: Callable[[], dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Return nothing."""
        return {}

    def load(self, step: int, fill: Callable[[str], None]) -> None:
        """Do nothing."""

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
    """Copy each tensor of `source` to the corresponding one of `target`, in one call.

    Example:
        >>> source, target = [torch.ones(2)], [torch.zeros(2)]
        >>> copy_all(source, target)
        >>> target[0].tolist()
        [1.0, 1.0]
    """
    torch._foreach_copy_(target, source)  # pyright: ignore[reportPrivateImportUsage]


def _floating(model: nn.Module) -> list[Tensor]:
    values = [*model.parameters(), *model.buffers()]
    return [value.detach() for value in values if value.is_floating_point()]


def _local(value: Tensor) -> Tensor:
    """Return this rank's shard of a tensor, sharing its memory."""
    return value.to_local() if isinstance(value, DTensor) else value
