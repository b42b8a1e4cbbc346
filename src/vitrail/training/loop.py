"""The training loop.

    for each batch:  seed, set the rate, forward and backward in parts, check, clip, step, average
    after an epoch:  validate

Everything random in a step is a function of the seed and of the number of the step, and everything else that it depends
on is in `Trainer`, so a run that is killed and resumed makes the very same steps.
"""

import json
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vitrail.atomic_io import write_file
from vitrail.errors import VitrailError
from vitrail.tasks.classify import ClassificationScore
from vitrail.training.trainer import Trainer


class NonFiniteLoss(VitrailError):
    """The loss or the gradient of a batch is not a number; the weights were not touched."""


def fit(run: Trainer) -> None:
    """Train until the run is over: its length is reached, or it no longer gets better.

    Raises:
        Diverged: the loss or the gradient is NaN or infinite. The update is not made.
        Stopped: the run was asked to stop; everything is saved.
        ResourceError: the disk is full; the last saved state is whole.
    """
    while True:
        if run.validation_due():
            metrics = validate(run, run.val_data)
            if metrics is None:
                run.stop_now()
            else:
                run.validated(metrics)
        if run.over():
            return
        train_epoch(run)


def train_epoch(run: Trainer) -> None:
    """Make the updates that are left of the current epoch."""
    run.train_mode()
    for batch in run.train_data.epoch(run.at.epoch, run.at.batch):
        run.seed_step()
        rate = set_rate(run)
        loss = backward(run, batch)
        norm = gradient_norm(run)
        if not (isfinite(loss) and isfinite(norm)):
            raise diverged(run, batch, loss, norm)
        clip(run, norm)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.ema.update(run.at.step)
        run.stepped(loss, rate, norm, pictures=len(batch.labels) * run.world.size)
        if run.over():
            return


def set_rate(run: Trainer) -> float:
    """Give each group its part of the schedule's rate."""
    rate = run.schedule.rate(run.share())
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def backward(run: Trainer, batch: Any) -> float:
    """Add up the gradients of a batch, part by part, and return the mean loss over all processes."""
    device = run.world.device
    images, labels = batch.images.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
    weight = 1.0
    if len(images) == 0:  # every picture was left out; the other processes still wait for gradients
        images, labels, weight = images.new_zeros(1, *images.shape[1:]), labels.new_zeros(1), 0.0
    images, targets = run.mix(images, labels, run.config.seed, run.at.step)
    parts = [part for part in zip(_cut(run, images), _cut(run, targets), strict=True) if len(part[0])]
    total = torch.zeros((), device=device)
    for i, (x, y) in enumerate(parts):
        with run.world.part(run.student, last=i == len(parts) - 1):
            with run.arithmetic():
                loss = run.objective(run.student(x), x, y) * (weight * len(x) / len(images))
            loss.backward()
        total += loss.detach()
    return run.world.total(total).item() / run.world.size


def gradient_norm(run: Trainer) -> float:
    """Return the norm of the whole gradient."""
    norm: Any = get_total_norm(_gradients(run))
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item()


def clip(run: Trainer, norm: float) -> None:
    """Shorten the gradient to the allowed norm."""
    if 0 < run.config.clip_grad < norm:
        clip_grads_with_norm_(_learning(run), run.config.clip_grad, torch.tensor(norm, device=run.world.device))


@torch.no_grad()
def validate(run: Trainer, data: Any) -> dict[str, float] | None:
    """Measure the averaged weights on a data set, shared by the processes; None if asked to stop meanwhile."""
    run.student.eval()
    score = ClassificationScore(len(run.labels), run.world.device)
    with run.ema.applied():
        for batch in data.epoch():
            images, labels = batch.images.to(run.world.device), batch.labels.to(run.world.device)
            if len(images) == 0:  # a process without a share still takes part in gathering shards
                images = images.new_zeros(1, *images.shape[1:])
            with run.arithmetic():
                logits, _ = run.student(images)
            score.add(logits, labels)
            if run.stop_asked():
                return None
    score.sums = run.world.total(score.sums)
    return score.metrics()


def diverged(run: Trainer, batch: Any, loss: float, norm: float) -> NonFiniteLoss:
    """Write down which pictures the batch held, and build the error."""
    at = run.at
    samples = [run.train_data.dataset.ids[i] for part in run.world.gather(batch.index.tolist()) for i in part]
    what = f"loss is {loss}" if not isfinite(loss) else f"norm of the gradient is {norm} (the loss is {loss:.4g})"
    where = f"its {len(samples)} pictures start with {samples[0]}"
    if run.folder is not None and run.world.leads:
        path = run.folder / "diverged.json"
        facts = {"step": at.step, "epoch": at.epoch, "batch": at.batch, "loss": str(loss), "grad_norm": str(norm)}
        write_file(
            path, (json.dumps({**facts, "samples": [str(sample) for sample in samples]}, indent=2) + "\n").encode()
        )
        where = f"its {len(samples)} pictures are listed in {path}"
    return NonFiniteLoss(
        f"The {what} in step {at.step + 1}, batch {at.batch + 1} of epoch {at.epoch + 1}: {where}.\n"
        "The update was not made; the weights are those of the step before.\n"
        f"Try a lower lr (it is {run.config.lr}), a longer warmup, clip_grad=1, precision=fp32; look at the pictures."
    )


def _cut(run: Trainer, values: Tensor) -> tuple[Tensor, ...]:
    return values.tensor_split(run.config.grad_accum)


def _learning(run: Trainer) -> list[Tensor]:
    return [p for group in run.optimizer.param_groups for p in group["params"]]


def _gradients(run: Trainer) -> list[Tensor]:
    return [p.grad for p in _learning(run) if p.grad is not None]
