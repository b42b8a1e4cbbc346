"""Trial updates, undone afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from vitrail.tasks.task import TaskBatch
from vitrail.training.ema import Ema, copy_all
from vitrail.training.loop import backward, clip, gradient_norm
from vitrail.training.trainer import Trainer


@contextmanager
def untouched(run: Trainer) -> Iterator[None]:
    """Restore weights, moments and average at the end of the block, also after an error."""
    kept = Ema(run.model, decay=0.0)
    try:
        yield
    finally:
        copy_all(kept.average, kept.live)
        run.optimizer.zero_grad()
        run.optimizer.state.clear()
        run.ema.restart()


def try_step(run: Trainer, batch: TaskBatch, rate: float = 0.0) -> float:
    """Make one whole update at a given learning rate, and return the loss."""
    run.train_mode()
    run.seed_step()
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    loss, _ = backward(run, batch)
    clip(run, gradient_norm(run))
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.ema.update(run.at.step)
    return loss
