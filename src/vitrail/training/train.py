"""Training from a config: acquire a run folder, build the trainer, run the loop, evaluate the best weights."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitrail import __version__
from vitrail.edits.edit import edits_from_json, replay
from vitrail.machine.host_memory import disable_malloc_trim
from vitrail.machine.system_info import usable_cores
from vitrail.tasks import find_options, find_task
from vitrail.tasks.evaluation_file import save_evaluation
from vitrail.tasks.skipped import skipped_fields
from vitrail.tasks.task import Dataset, DataSplits
from vitrail.training.batch_size import largest_batch, useful_batch
from vitrail.training.checkpoint import list_states, saved_fact
from vitrail.training.config import RunConfig
from vitrail.training.distributed import SingleProcess, connect
from vitrail.training.lock import locked
from vitrail.training.loop import fit
from vitrail.training.rate_finder import find_rate
from vitrail.training.recipe import recipe_of, with_recipe
from vitrail.training.reporters import NullReporter, Reporter
from vitrail.training.resume import resume
from vitrail.training.run_dir import (
    EVALUATION,
    begins_anew,
    new_folder,
    refuse_folder,
    settle_config,
    write_config,
    write_summary,
)
from vitrail.training.setup import (
    add_adapters,
    bind_task,
    build_average,
    build_length,
    build_trainer,
    default_batch_size,
    eval_batch,
    loaders,
    open_data,
    train_size,
)
from vitrail.training.signals import StopRequest
from vitrail.training.trackers.tracker import check_tracker
from vitrail.training.trainer import REPORT_IMAGES, Trainer
from vitrail.weights.folder import load_model


@dataclass(frozen=True)
class Summary:
    """Result of a run; `summary.json` holds `to_dict`.

    Args:
        task: name of the task.
        model: name of the variant.
        data: training data.
        split: split of the metrics: `test` if the data has one, else `val`.
        metrics: metrics of the best weights on it, and `loss`; None if a metric does not apply to the data.
        validation: best value of the first metric in validation, which selects the best weights.
        best_epoch: epochs done then.
        parameters: number of weights.
        epochs: epochs done.
        steps: updates done.
        seconds: time of training and validation, including that before a resume.
        seed: seed of the run.
        folder: the run folder.
        command: command line of the run, if there was one.
        vitrail: version of this library.
        skipped: samples that opening the data, training and validation left out.
        skipped_names: the first of them.
    """

    task: str
    model: str
    data: str
    split: str
    metrics: dict[str, float | None]
    validation: dict[str, float]
    best_epoch: int
    parameters: int
    epochs: float
    steps: int
    seconds: float
    seed: int
    folder: str
    command: str | None
    vitrail: str = __version__
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values with each metric under its own name, and that of validation as `val_<name>`."""
        flat: dict[str, Any] = {}
        for key, value in asdict(self).items():
            flat |= {"metrics": self.metrics, "validation": self.validation}.get(key) or {key: value}
        return flat


def train(
    config: RunConfig, reporter: Reporter | None = None, stop: StopRequest | None = None, command: str | None = None
) -> Summary:
    """Train a model from a config, and write a run folder.

    Args:
        config: config of the run.
        reporter: receives progress; nothing is reported by default.
        stop: a request to stop that may be set from outside.
        command: the command line, for the records.

    Returns:
        The summary, also written to `summary.json`; the whole evaluation of the best weights is in `evaluation.json`.

    Raises:
        VitrailError: the config cannot be run; no files are left.
        NonFiniteLoss: the loss is NaN or infinite.
        Interrupted: a stop was requested, and the run is saved.
        ResourceError: the disk is full, or the run folder is in use.

    Example:
        >>> import tempfile
        >>> tiny = ("dim=16", "depth=1", "num_heads=2")
        >>> from vitrail.training.config import TrainConfig
        >>> config = TrainConfig(data="digits", model="vit_tiny_patch16_224", set=tiny, imgsz=16, epochs=1, batch=250)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     train(replace(config, out=f"{place}/run")).steps
        5
    """
    config, begun = settle_config(config)
    check_tracker(config.track)
    world = connect(config.device, config.parallel)
    reporter = reporter if reporter is not None and world.leads else NullReporter()
    with ExitStack() as stack:
        stack.callback(world.close)
        world.follow(lambda: refuse_folder(config, begun))
        stack.enter_context(isolated_rng(config))
        splits = open_data(config)
        for text in getattr(splits, "notes", list)():
            reporter.note(text)
        run = make_run(config, world, splits, reporter, stop or StopRequest(), begun)
        run.command = command
        run.folder = acquire_run_dir(run, begun, stack)
        stack.callback(lambda: run.log.close())
        resume(run)
        if begun is not None and run.over():
            reporter.note(
                f"{run.folder} is finished ({run.at.step} updates): its evaluation and its report are written again. "
                "To train longer, start from its weights: --weights RUN/weights/best --out NEW_FOLDER."
            )
        stack.callback(reporter.end)
        reporter.begin(title(run, splits), run.task.unit)
        run.restart_clock()
        fit(run)
        return finalize(run, splits)


def make_run(
    config: RunConfig,
    world: SingleProcess,
    splits: DataSplits,
    reporter: Reporter,
    stop: StopRequest,
    begun: Path | None = None,
) -> Trainer:
    """Build the trainer.

    A new run searches batch size and learning rate if they are `auto`. A resumed run loads its weights from the saved
    state: the initial checkpoint may be gone.
    """
    if begun is None:
        config, notes = with_defaults(config, world, splits)
        for text in notes:
            reporter.note(text)
    parts = world.size * config.grad_accum
    if config.batch is None:
        recipe = recipe_of(config)
        batch = default_batch_size(train_size(splits), parts, recipe.batch, recipe.updates)
        config = replace(config, batch=batch)
    start = replace(
        config,
        batch=parts if config.batch == "auto" else config.batch,
        lr=max(recipe_of(config).lr, config.min_lr) if config.lr == "auto" else config.lr,
    )
    saved = begun is not None and list_states(begun / "state")
    task = bind_task(replace(start, weights=None) if saved else start, splits)
    if saved:
        replay(task.model, edits_from_json(saved_fact(saved, "edits", []), f"{begun}/state"))
    else:
        add_adapters(task.model, start)
    run = build_trainer(start, world, task, reporter, stop)
    there = dict(splits)
    scale = len(run.val_data.dataset) / max(len(there["val"]), 1)  # a loader may count windows, a split tokens
    run.final_samples = round(scale * len(there.get("test", there["val"])))
    run.report_samples = REPORT_IMAGES if find_task(config.task).reads == "image" else 0
    if begun is None and config.batch == "auto":
        samples = train_size(splits)
        most = useful_batch(samples, parts)
        found = largest_batch(run, most)
        run.config = replace(run.config, batch=found)
        run.train_data, run.val_data = loaders(run.config, world, task)
        run.length = build_length(run.config, run.train_data.steps)
        run.ema = build_average(run.config, run.model, run.train_data.steps)
        bound = f" and tried no more, so that {samples:,} samples make {run.train_data.steps} updates an epoch"
        reporter.note(f"batch=auto found {found}{bound if found == most else ''}.")
    if begun is None and config.lr == "auto":
        found = find_rate(run).suggestion
        run.config = replace(run.config, lr=found, min_lr=min(config.min_lr, found))
        run.schedule = replace(run.schedule, lr=found, min_lr=run.config.min_lr)
        reporter.note(f"lr=auto found {found:.2e}.")
    disable_malloc_trim()  # after the batch-size search, which relies on trimming
    return run


def with_defaults(config: RunConfig, world: SingleProcess, splits: DataSplits) -> tuple[RunConfig, list[str]]:
    """Fill in defaults: the task's model for this machine and data, then the recipe; return notes."""
    task, device, notes = find_task(config.task), world.device.type, []
    choose, advise = getattr(task, "default_model", None), getattr(task, "advice", None)
    free = config.model == "auto" and config.weights in (None, "pretrained") and not config.set
    if free and choose is not None:
        choice = choose(splits, device, config.weights is not None)
        config, notes = replace(config, model=choice.model), [choice.note]
    config, told = with_recipe(config)
    return config, notes + told + ([] if advise is None else advise(splits, config, device, usable_cores()))


def acquire_run_dir(run: Trainer, begun: Path | None, stack: ExitStack) -> Path:
    """Acquire the run folder exclusively on rank 0; return its path on all ranks."""

    def take() -> Path:
        folder = begun or new_folder(run.config)
        stack.enter_context(locked(folder))
        run.config = replace(run.config, out=str(folder))
        if begun is None or begins_anew(begun):
            write_config(folder, run.config)
        return folder

    return run.world.follow(take)


def finalize(run: Trainer, splits: DataSplits) -> Summary:
    """Save the last state and weights, evaluate the best weights, and write the summary."""
    run.save()
    run.save_last()
    return run.world.follow(lambda: summarize(run, splits))


def summarize(run: Trainer, splits: DataSplits) -> Summary:
    """Evaluate the best weights as they are on disk, on the test split or else on validation, and write the result.

    The result of a run is measured only here: `evaluation.json` has all of it, the summary the headline figures.
    """
    assert run.folder is not None
    config, at, kind = run.config, run.at, find_task(run.config.task)
    splits_there = dict(splits)
    split, samples = ("test", splits_there["test"]) if "test" in splits_there else ("val", splits.require("val"))
    run.reporter.note(f"Measuring the best weights on {_usable(run, samples, split)} samples ({split}).")
    options = find_options(config.task).EvaluateOptions(
        batch=min(64, eval_batch(config, run.world)),
        bad=config.bad,
        optimize=False,  # the figures of a run must not depend on timings
    )
    evaluation = kind.evaluate(load_model(run.folder / "weights" / "best", run.world.device), samples, options)
    save_evaluation(evaluation, run.folder / EVALUATION)
    measured, first = evaluation.metrics(), run.metrics[0].name
    summary = Summary(
        task=config.task,
        model=config.model,
        data=config.data,
        split=split,
        metrics={name: measured.get(name) for name in (*(spec.name for spec in run.metrics), "loss")},
        validation={f"val_{first}": at.best or 0.0},
        best_epoch=at.best_epoch,
        parameters=evaluation.parameters,
        epochs=round(at.epoch + at.batch / run.train_data.steps, 4),
        steps=at.step,
        seconds=round(at.seconds, 3),
        seed=config.seed,
        folder=str(run.folder),
        command=run.command,
        **skipped_fields(skipped_samples(run, splits)),
    )
    write_summary(run.folder, summary.to_dict())
    return summary


def skipped_samples(run: Trainer, splits: DataSplits) -> list[str]:
    """Return names of the samples that were left out: first those found when the data was opened."""
    opened = [getattr(problem, "id", str(problem)) for problem in getattr(splits, "skipped", [])]
    return list(dict.fromkeys([*opened, *run.skipped]))


def _usable(run: Trainer, samples: Dataset, split: str) -> str:
    """Return the number of samples of a split that can be read, as far as it is known before they are."""
    if split != "val" and run.config.bad == "skip":
        return f"at most {len(samples):,}"
    return f"{len(samples) - sum(name in run.skipped for name in (samples.ids if run.skipped else ())):,}"


def title(run: Trainer, splits: DataSplits) -> str:
    """Return a line with model, data and batch."""
    count = sum(p.numel() for p in run.model.parameters())
    place = f", into {run.folder}" if run.folder else ""
    goes_on = f", going on from step {run.at.step}" if run.at.step else ""
    return (
        f"{run.config.model} ({count / 1e6:.2f} M parameters) on {splits.name}: {run.task.describe()}, "
        f"batch {run.config.batch}, {run.precision}{place}{goes_on}"
    )


@contextmanager
def isolated_rng(config: RunConfig) -> Iterator[None]:
    """Keep the host program's random state, thread count and determinism as they are; set the run's own inside."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # needed for deterministic cuBLAS
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
