"""Trying things on a session and leaving it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.training.ema import Ema, copy_all
from vitrail.training.loop import backward, clip, gradient_norm
from vitrail.training.trainer import Trainer


class FakeBatch(NamedTuple):
    """Random pictures with random labels."""

    images: Tensor
    labels: Tensor


@contextmanager
def untouched(run: Trainer) -> Iterator[None]:
    """Give weights, moments and average back as they were when the block ends, however it ends."""
    kept = Ema(run.model, decay=0.0)
    try:
        yield
    finally:
        copy_all(kept.average, kept.live)
        run.optimizer.zero_grad()
        run.optimizer.state.clear()
        run.ema.restart()


def fake_batch(run: Trainer, size: int) -> FakeBatch:
    """Return `size` random pictures of the size that the run trains on."""
    protocol = run.preprocess
    images = torch.randn(size, protocol.channels, protocol.size, protocol.size)
    return FakeBatch(images, torch.randint(len(run.labels), (size,)))


def try_step(run: Trainer, batch: object, rate: float = 0.0) -> float:
    """Make one whole update with a rate of one's own, and return the loss."""
    run.train_mode()
    run.seed_step()
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    loss = backward(run, batch)
    clip(run, gradient_norm(run))
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.ema.update(run.at.step)
    return loss
