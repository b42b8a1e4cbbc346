"""Training state and bookkeeping: model, optimizer, data, progress, best checkpoint."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.data.index import left_out
from vitrail.data.stateless_rng import BatchRng
from vitrail.edits.edit import replay
from vitrail.tasks.task import BatchLoader, MetricSpec, TrainingTask
from vitrail.training.checkpoint import Checkpoint, SavedCheckpoint, TrainingProgress, save_state
from vitrail.training.config import RunConfig
from vitrail.training.distributed import SingleProcess
from vitrail.training.ema import Ema, LastAverage, NoEma
from vitrail.training.log import Log, NoLog
from vitrail.training.reporters import Reporter, StepStats
from vitrail.training.schedule import Length, Schedule
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.unfreezing import GradualUnfreezing, SteadyFreeze
from vitrail.training.watch import TrainingWatch
from vitrail.weights.folder import save_model

REPORT_IMAGES = 200
"""Images whose validation takes as long as the explained images of a report."""
_FINAL, _REPORT_SECONDS = 1.5, 1.3
"""Cost of the end of a run: of a sample in the final evaluation, in validations; of the rest, in seconds: the report,
and reading the data of that evaluation."""


@dataclass
class Trainer:
    """Training state of one run.

    Args:
        config: config of the run.
        world: the processes of the run.
        model: the model itself.
        task: loss, metrics and batches of the model.
        metrics: metrics of a validation; the first selects the best weights.
        wrapped: model and forward pass of the task as DDP or FSDP wraps them.
        frozen: modules that are not trained.
        unfreezing: which modules are frozen in an epoch.
        precision: compute precision of a forward pass, `fp32` or `bf16`.
        optimizer: its groups hold their `scale`, a factor on the learning rate.
        ema: average of the weights.
        schedule: learning rate by share of the run.
        length: length of the run.
        train_data: loader of training batches.
        val_data: loader of validation batches.
        folder: the run folder, or None to write no files.
        log: log of steps and epochs.
        reporter: receives progress.
        stop: the stop request.
        at: progress of the run.
        facts: values that a state stores with the progress: machine, threads, digests of the data.
        command: the command line, for the records.
        watch: warnings while training.
        skipped: reasons of the samples that training and validation left out, by name, of all ranks.
        final_samples: samples of the final evaluation.
        report_samples: samples whose evaluation takes as long as the figures of the report.
        sample_seconds: seconds of a sample in the last validation.
        save_seconds: seconds of the last save.
    """

    config: RunConfig
    world: SingleProcess
    model: nn.Module
    task: TrainingTask
    metrics: tuple[MetricSpec, ...]
    wrapped: nn.Module
    frozen: Sequence[nn.Module]
    precision: str
    optimizer: torch.optim.Optimizer
    ema: Ema | LastAverage | NoEma
    schedule: Schedule
    length: Length
    train_data: BatchLoader
    val_data: BatchLoader
    reporter: Reporter
    stop: StopRequest
    folder: Path | None = None
    log: Log = field(default_factory=NoLog)
    at: TrainingProgress = field(default_factory=TrainingProgress)
    facts: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    watch: TrainingWatch = field(default_factory=TrainingWatch)
    unfreezing: GradualUnfreezing | SteadyFreeze | None = None
    final_samples: int = 0
    report_samples: int = 0
    sample_seconds: float = 0.0
    save_seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    _best: tuple[dict[str, Tensor], dict[str, float]] | None = None

    def __post_init__(self) -> None:
        self.restart_clock()

    def restart_clock(self) -> None:
        """Restart the clock; time spent before a resume stays counted."""
        self._zero = time.monotonic() - self.at.seconds
        self._saved_at, self._saved_step = time.monotonic(), self.at.step

    # Queries of the loop.

    def over(self) -> bool:
        """Return whether the run is finished, by its length or its patience."""
        tired = self.config.patience > 0 and self.at.stale >= self.config.patience
        return tired or self.length.over(self.at.step, self.at.seconds)

    def validation_due(self) -> bool:
        """Return whether a validation is due before the next update."""
        at = self.at
        whole = at.batch == 0 and at.epoch % self.config.eval_every == 0
        return at.step > at.validated and (whole or self.over())

    def share(self) -> float:
        """Return the position of the next update in the run, in [0, 1]."""
        return self.length.share(self.at.step, self.at.seconds)

    def finish_seconds(self) -> float:
        """Estimate the seconds from the last update to the end, from the last validation and the last save.

        The final evaluation computes in fp32 and without fused blocks, and the report explains a few images with
        gradients and writes figures.
        """
        if not self.sample_seconds or self.folder is None:
            return 0.0
        samples = _FINAL * self.final_samples + self.report_samples
        return self.sample_seconds * samples + self.save_seconds + _REPORT_SECONDS

    def arithmetic(self) -> AbstractContextManager[object]:
        """Return the autocast context of a forward pass."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.world.device.type, torch.bfloat16)

    def train_mode(self) -> None:
        """Put the model in training mode; frozen modules stay in evaluation mode."""
        if self.unfreezing is not None:
            self.frozen = self.unfreezing.freeze(self.at.epoch)
        self.wrapped.train()
        for module in self.frozen:
            module.eval()

    def seed_step(self) -> None:
        """Make all randomness of the next update a function of seed, step and rank."""
        draws = BatchRng(self.config.seed, self.at.step, np.array([self.world.rank]))
        seed = int(draws.words("step")[0] >> np.uint64(1))
        # Not torch.manual_seed: it seeds every device type, and formats a stack trace for each that is unavailable.
        torch.default_generator.manual_seed(seed)
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # Callbacks of the loop.

    def stepped(self, loss: float, rate: float, norm: float, weight: float) -> None:
        """Count, log and report an update; then save or stop if that is due."""
        at = self.at
        at.step, at.batch, at.loss_sum, at.rate = at.step + 1, at.batch + 1, at.loss_sum + loss, rate
        row = {"step": at.step, "epoch": at.epoch, "loss": loss, "lr": rate, "grad_norm": norm}
        self.log.step(row)
        self._warn(self.watch.step(at.step, loss, norm))
        if at.batch == self.train_data.steps:
            at.epoch, at.batch = at.epoch + 1, 0
        at.seconds = time.monotonic() - self._zero
        epoch = at.epoch + at.batch / self.train_data.steps
        done = self.length.done(at.step, at.seconds)
        self.reporter.step(StepStats(at.step, epoch, done, loss, rate, weight, self.finish_seconds()))
        self._meet()

    def validated(self, metrics: dict[str, float]) -> None:
        """Log a validation, and keep the weights if they are the best so far."""
        at = self.at
        better = at.best is None or self._rank(metrics) > self._rank(
            {self.metrics[0].name: at.best, "loss": at.best_loss}
        )
        train_loss = at.loss_sum / (at.step - at.validated)
        at.validated, at.loss_sum = at.step, 0.0
        at.stale = 0 if better else at.stale + 1
        if better:
            self.take_as_best(metrics)
        at.seconds = time.monotonic() - self._zero
        row = {
            "step": at.step,
            "epoch": round(at.epoch + at.batch / self.train_data.steps, 4),
            "train_loss": train_loss,
            "val_loss": metrics["loss"],
            **{spec.name: metrics.get(spec.name) for spec in self.metrics},
            "lr": at.rate,
            "seconds": round(at.seconds, 3),
            "best": better,
        }
        self.log.epoch(row)
        self.reporter.epoch(row)
        self.gather_skipped()
        self._warn(self.watch.validation(metrics, self.share()))

    def gather_skipped(self) -> None:
        """Gather what the loaders of all ranks left out, and report what is new."""
        if self.config.bad != "skip":
            return
        own = {
            name: reason
            for loader in (self.train_data, self.val_data)
            for name, reason in dict(getattr(loader, "skipped", {})).items()  # a copy: threads may read ahead
            if name not in self.skipped
        }
        new = {name: reason for found in self.world.gather(own) for name, reason in found.items()}
        if new:
            name = min(new)
            self.skipped |= dict(sorted(new.items()))
            self.reporter.note(f"warning: {left_out(len(new), 'sample')}, first {name}: {new[name]}")

    def _warn(self, text: str | None) -> None:
        if text is not None:
            self.reporter.note(text)

    def _rank(self, metrics: dict[str, float]) -> tuple[float, float]:
        """Return a sort key, larger for better metrics: the first metric, then the loss; NaN is the worst."""
        spec = self.metrics[0]
        value = metrics[spec.name] if spec.higher_is_better else -metrics[spec.name]
        return (value if isfinite(value) else -inf), -_finite(metrics["loss"])

    def take_as_best(self, metrics: dict[str, float]) -> None:
        """Keep the current weights as the best; they are written with the next state, not after each epoch."""
        self.at.best, self.at.best_loss = metrics[self.metrics[0].name], _finite(metrics["loss"])
        self.at.best_epoch = self.at.epoch
        self.keep_weights(metrics)

    def keep_weights(self, metrics: dict[str, float]) -> None:
        """Copy the current weights, for the next save to write them as the best."""
        self._best = self._copy(), metrics

    def stop_asked(self) -> bool:
        """Return whether any rank has a stop request."""
        return self.world.largest([float(self.stop.code)])[0] > 0

    # Checkpoints.

    def save(self) -> None:
        """Write the best weights if they changed, then the training state."""
        if self.folder is None:
            return
        start = time.monotonic()
        if self._best is not None:
            self._write_weights("best", *self._best)
            self._best = None
        tensors = self._tensors() | self.ema.tables(self._weights)
        self.gather_skipped()
        skipped = {"skipped": self.skipped} if self.skipped else {}
        facts = {**self.facts, "precision": self.precision, "lengths": self.log.flush(), **skipped}
        save_state(self.folder / "state", Checkpoint(self.at, facts, tensors), self.world)
        self._saved_at, self._saved_step = time.monotonic(), self.at.step
        self.save_seconds = self._saved_at - start

    def save_last(self) -> None:
        """Write the weights as they are now as the model folder `weights/last`."""
        self._write_weights("last", self._copy())

    def restore(self, saved: SavedCheckpoint) -> None:
        """Continue from a state: weights, moments, average, position."""
        self.ema.load(saved.position.step, lambda table: saved.read({table: self._weights()}, self.world))
        saved.read(self._tensors(), self.world)
        self.at = saved.position
        self.restart_clock()

    def stop_now(self) -> None:
        """Save everything and leave the loop.

        Raises:
            Interrupted: always, with the requested exit code.
        """
        code = int(self.world.largest([float(self.stop.code)])[0])
        self.save()
        raise Interrupted(code, str(self.folder or ""))

    def _meet(self) -> None:
        """Synchronize the ranks on the time, and on whether to save or stop."""
        due = 0 < self.config.save_steps <= self.at.step - self._saved_step
        due |= 0 < self.config.save_seconds <= time.monotonic() - self._saved_at
        code, due, self.at.seconds = self.world.largest([float(self.stop.code), float(due), self.at.seconds])
        if code:
            self.stop_now()
        if due:
            self.save()

    def _weights(self) -> dict[str, Tensor]:
        return self.world.model_tensors(self.model)

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors that the next update changes (no copies), in tables."""
        companions: nn.Module | None = getattr(self.task, "companions", None)
        if companions is None:
            return {"model": self._weights(), "optimizer": self.world.optimizer_tensors(self.model, self.optimizer)}
        return {
            "model": self._weights(),
            "companions": self.world.model_tensors(companions),
            "optimizer": self.world.optimizer_tensors(self.wrapped, self.optimizer),
        }

    def _copy(self) -> dict[str, Tensor]:
        """Return a copy of the averaged weights, full and on the CPU."""
        with self.ema.applied():
            return {name: value.clone() for name, value in self.world.whole_model(self.model).items()}

    def _write_weights(self, name: str, weights: dict[str, Tensor], metrics: dict[str, float] | None = None) -> None:
        """Write weights as a model folder, on rank 0, which has the full tensors."""
        if self.folder is not None:
            place = self.folder / "weights" / name
            self.world.follow(lambda: self._export(place, weights, metrics))

    def _export(self, folder: Path, weights: dict[str, Tensor], metrics: dict[str, float] | None) -> None:
        """Write a model folder, with a model on the meta device as the template."""
        shell: Any = replay(self.task.meta_model(), self.task.model.edits)
        shell.load_state_dict(weights, assign=True)
        shell.metadata = self.task.metadata()
        save_model(shell, folder, command=self.command, metrics=metrics, dataset=self._measured_on())

    def _measured_on(self) -> str:
        """Return the name of the validation data and its split."""
        name, _, split = self.val_data.dataset.name.rpartition(" ")
        return f"{name} ({split} split)" if name else split


def _finite(loss: float) -> float:
    return loss if isfinite(loss) else inf
