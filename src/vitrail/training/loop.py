"""The training loop.

    for each batch:  seed, set the learning rate, forward and backward by micro-batches, check, clip, step, EMA
    after an epoch:  validate

All randomness of a step is a function of the seed and of the step number, and all other state is in `Trainer`, so a run
that is killed and resumed makes the same steps. Loss, metrics and the contents of a batch belong to the task.
"""

import json
import time
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vitrail.atomic_io import write_file
from vitrail.errors import VitrailError
from vitrail.tasks.task import BatchLoader, TaskBatch
from vitrail.training.trainer import Trainer


class NonFiniteLoss(VitrailError):
    """Loss or gradient of a batch is NaN or infinite; the weights were not updated."""


def fit(run: Trainer) -> None:
    """Train until the run is finished: its length is reached, or its patience.

    Raises:
        NonFiniteLoss: loss or gradient is NaN or infinite. The update is not made.
        Interrupted: a stop was requested; everything is saved.
        ResourceError: the disk is full; the last saved state is intact.
    """
    while True:
        if run.validation_due():
            start = time.monotonic()
            metrics = validate(run, run.val_data)
            if metrics is None:
                run.stop_now()
            else:
                seconds = (time.monotonic() - start) / len(run.val_data.dataset)
                run.sample_seconds = max(seconds, getattr(run.val_data, "sample_seconds", 0.0))
                run.validated(metrics)
        if run.over():
            return
        train_epoch(run)


def train_epoch(run: Trainer) -> None:
    """Make the remaining updates of the current epoch."""
    run.train_mode()
    for batch in run.train_data.epoch(run.at.epoch, run.at.batch):
        run.seed_step()
        rate = set_rate(run)
        loss, weight = backward(run, batch)
        norm = gradient_norm(run)
        if not (isfinite(loss) and isfinite(norm)):
            raise diverged(run, batch, loss, norm)
        clip(run, norm)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.ema.update(run.at.step)
        run.stepped(loss, rate, norm, weight)
        if run.over():
            return


def set_rate(run: Trainer) -> float:
    """Set the learning rate of each parameter group from the schedule."""
    rate = run.schedule.rate(run.share())
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def backward(run: Trainer, batch: TaskBatch) -> tuple[float, float]:
    """Accumulate the gradients of a batch; return the mean loss and the weight of the batch over all ranks.

    The gradient is that of the mean over the global batch: each rank counts by the weight of its batch.
    """
    batch = batch.to(run.world.device)
    share, total_weight = run.world.weigh(batch.weight)
    if batch.weight == 0:  # every sample was skipped; the other ranks still wait in the all-reduce
        batch = batch.placeholder()
    batch = run.task.transform_batch(batch, run.config.seed, run.at.step)
    parts = batch.split(run.config.grad_accum)
    total = torch.zeros((), device=run.world.device)
    for i, (fraction, part) in enumerate(parts):
        with run.world.part(run.wrapped, last=i == len(parts) - 1):
            with run.arithmetic():
                outputs, auxiliary = run.wrapped(part)
                loss = run.task.loss(outputs, part)
                loss = (loss if auxiliary is None else loss + auxiliary) * (share * fraction)
            loss.backward()
        total += loss.detach()
    return run.world.total(total).item() / run.world.size, total_weight


def gradient_norm(run: Trainer) -> float:
    """Return the global norm of the gradient."""
    norm: Any = get_total_norm(_gradients(run))
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item()


def clip(run: Trainer, norm: float) -> None:
    """Clip the gradient to the maximum norm."""
    if 0 < run.config.clip_grad < norm:
        clip_grads_with_norm_(_learning(run), run.config.clip_grad, torch.tensor(norm, device=run.world.device))


@torch.no_grad()
def validate(run: Trainer, data: BatchLoader) -> dict[str, float] | None:
    """Evaluate the averaged weights on a data set, shared by the ranks; None if a stop is requested meanwhile."""
    run.wrapped.eval()
    metric = run.task.metric(run.world.device)
    with run.ema.applied():
        for batch in data.epoch():
            batch = batch.to(run.world.device)
            with run.arithmetic():  # a rank without data still takes part in gathering shards
                outputs, _ = run.wrapped(batch if batch.weight else batch.placeholder())
            if batch.weight:
                metric.update(outputs, batch)
            if run.stop_asked():
                return None
    metric.sync(run.world.total)
    baseline = getattr(metric, "baseline", None)
    if baseline is not None:
        run.watch.baseline = baseline()
    return metric.compute()


def diverged(run: Trainer, batch: TaskBatch, loss: float, norm: float) -> NonFiniteLoss:
    """Write the samples of the batch to a file, and return the error."""
    at = run.at
    samples = [run.train_data.dataset.ids[i] for part in run.world.gather(batch.index.tolist()) for i in part]
    what = f"loss is {loss}" if not isfinite(loss) else f"norm of the gradient is {norm} (the loss is {loss:.4g})"
    where = f"its {len(samples)} samples start with {samples[0]}"
    if run.folder is not None and run.world.leads:
        path = run.folder / "diverged.json"
        facts = {"step": at.step, "epoch": at.epoch, "batch": at.batch, "loss": str(loss), "grad_norm": str(norm)}
        write_file(
            path, (json.dumps({**facts, "samples": [str(sample) for sample in samples]}, indent=2) + "\n").encode()
        )
        where = f"its {len(samples)} samples are listed in {path}"
    return NonFiniteLoss(
        f"The {what} in step {at.step + 1}, batch {at.batch + 1} of epoch {at.epoch + 1}: {where}.\n"
        "The update was not made; the weights are those of the step before.\n"
        f"Try a lower lr (it is {run.config.lr}), a longer warmup, clip_grad=1, precision=fp32; look at the samples."
    )


def _learning(run: Trainer) -> list[Tensor]:
    return [p for group in run.optimizer.param_groups for p in group["params"]]


def _gradients(run: Trainer) -> list[Tensor]:
    return [p.grad for p in _learning(run) if p.grad is not None]
