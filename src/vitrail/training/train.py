"""Training from a config: claim a folder, put the session together, run the loop, keep the result."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from vitrail import __version__
from vitrail.data.datasets import Splits
from vitrail.lab.evaluate import evaluate
from vitrail.lab.run_folder import EVALUATION
from vitrail.training.batch_size import largest_batch, useful_batch
from vitrail.training.checkpoint import list_states
from vitrail.training.config import TrainConfig
from vitrail.training.distributed import SingleProcess, connect
from vitrail.training.host_memory import disable_malloc_trim
from vitrail.training.lock import locked
from vitrail.training.loop import fit
from vitrail.training.rate_finder import find_rate
from vitrail.training.reporters import NullReporter, Reporter
from vitrail.training.resume import resume
from vitrail.training.run_dir import new_folder, refuse_folder, settle_config, write_config, write_summary
from vitrail.training.setup import build_length, build_model, build_session, eval_batch, loaders, open_data, usual_batch
from vitrail.training.signals import StopRequest
from vitrail.training.trainer import Trainer


@dataclass(frozen=True)
class Summary:
    """The result of a run, as `summary.json` holds it.

    Args:
        task: `classify`.
        model: name of the variant.
        data: what it learned from.
        split: what the measures below were taken on: `test` where the data has one, else `val`.
        top1: share of pictures whose likeliest class is right, of the best weights.
        top5: share of pictures whose class is among the five likeliest; None for five classes or fewer.
        loss: mean cross-entropy there.
        val_top1: best validation top-1, by which the weights were chosen.
        best_epoch: epochs done when they were.
        parameters: number of weights.
        epochs: epochs done.
        steps: updates done.
        seconds: time of training and validation, over all sessions.
        seed: seed of the run.
        folder: the run folder.
        command: command line that made it, where there was one.
        vitrail: version of this library.
    """

    task: str
    model: str
    data: str
    split: str
    top1: float
    top5: float | None
    loss: float
    val_top1: float
    best_epoch: int
    parameters: int
    epochs: float
    steps: int
    seconds: float
    seed: int
    folder: str
    command: str | None
    vitrail: str = __version__


def train(
    config: TrainConfig, reporter: Reporter | None = None, stop: StopRequest | None = None, command: str | None = None
) -> Summary:
    """Train a model as a config says, and leave a run folder.

    Args:
        config: what to do.
        reporter: who is told how it goes; nobody by default.
        stop: a request to stop that may be set from outside.
        command: the command line, for the records.

    Returns:
        The summary, also written to `summary.json`; the whole evaluation of the best weights is in `evaluation.json`.

    Raises:
        VitrailError: something in the config cannot work; nothing is left behind.
        Diverged: the loss is not a number.
        Stopped: the run was asked to stop, and is saved.
        ResourceError: the disk is full, or the run folder is in use.

    Example:
        >>> import tempfile
        >>> tiny = ("dim=16", "depth=1", "num_heads=2")
        >>> config = TrainConfig(data="digits", model="vit_tiny_patch16_224", set=tiny, imgsz=16, epochs=1, batch=250)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     train(replace(config, out=f"{place}/run")).steps
        5
    """
    config, begun = settle_config(config)
    world = connect(config.device, config.parallel)
    reporter = reporter if reporter is not None and world.leads else NullReporter()
    with ExitStack() as stack:
        stack.callback(world.close)
        world.follow(lambda: refuse_folder(config, begun))
        stack.enter_context(isolated_rng(config))
        splits = open_data(config)
        run = make_run(config, world, splits, reporter, stop or StopRequest(), begun)
        run.command = command
        run.folder = acquire_run_dir(run, begun, stack)
        stack.callback(lambda: run.log.close())
        resume(run)
        stack.callback(reporter.end)
        reporter.begin(title(run, splits))
        run.restart_clock()
        fit(run)
        return finalize(run, splits)


def make_run(
    config: TrainConfig,
    world: SingleProcess,
    splits: Splits,
    reporter: Reporter,
    stop: StopRequest,
    begun: Path | None = None,
) -> Trainer:
    """Build the session.

    A new run finds the batch and the rate where its config says `auto`. One that has saved a state takes its weights
    from there: the file that it began from may be gone.
    """
    parts = world.size * config.grad_accum
    if config.batch is None:
        config = replace(config, batch=usual_batch(len(splits.require("train")), parts))
    start = replace(
        config,
        batch=parts if config.batch == "auto" else config.batch,
        lr=max(1e-3, config.min_lr) if config.lr == "auto" else config.lr,
    )
    saved = begun is not None and list_states(begun / "state")
    model = build_model(replace(start, weights=None) if saved else start, splits)
    run = build_session(start, world, splits, model, reporter, stop)
    if begun is None and config.batch == "auto":
        pictures = len(splits.require("train"))
        most = useful_batch(pictures, parts)
        found = largest_batch(run, most)
        run.config = replace(run.config, batch=found)
        run.train_data, run.val_data = loaders(run.config, world, splits, run.preprocess)
        run.length = build_length(run.config, run.train_data.steps)
        bound = f" and tried no more, so that {pictures:,} pictures make {run.train_data.steps} updates an epoch"
        reporter.note(f"batch=auto found {found}{bound if found == most else ''}.")
    if begun is None and config.lr == "auto":
        found = find_rate(run).suggestion
        run.config = replace(run.config, lr=found, min_lr=min(config.min_lr, found))
        run.schedule = replace(run.schedule, lr=found, min_lr=run.config.min_lr)
        reporter.note(f"lr=auto found {found:.2e}.")
    disable_malloc_trim()  # after the search for a batch, which goes by what is given back
    return run


def acquire_run_dir(run: Trainer, begun: Path | None, stack: ExitStack) -> Path:
    """Take the run folder, for this run alone; the first process does, the others learn which."""

    def take() -> Path:
        folder = begun or new_folder(run.config)
        stack.enter_context(locked(folder))
        run.config = replace(run.config, out=str(folder))
        if begun is None:
            write_config(folder, run.config)
        return folder

    return run.world.follow(take)


def finalize(run: Trainer, splits: Splits) -> Summary:
    """Save the last state and weights, evaluate the best weights, and write the summary."""
    run.save()
    run.save_last()
    return run.world.follow(lambda: summarize(run, splits))


def summarize(run: Trainer, splits: Splits) -> Summary:
    """Measure the best weights as they lie on the disk, on the test split or else on validation; write what comes out.

    This is the one place where the result of a run is measured: `evaluation.json` has all of it, the summary its head.
    """
    assert run.folder is not None
    config, at = run.config, run.at
    split, pictures = ("test", splits.test) if splits.test is not None else ("val", splits.require("val"))
    run.reporter.note(f"Measuring the best weights on {len(pictures):,} pictures ({split}).")
    evaluation = evaluate(
        run.folder / "weights" / "best",
        pictures,
        batch=min(64, eval_batch(config, run.world)),
        device=str(run.world.device),
        bad=config.bad,
        optimize=False,  # a run's own figures come from its plain model, so they depend on nothing that was timed
    )
    evaluation.save(run.folder / EVALUATION)
    summary = Summary(
        task="classify",
        model=config.model,
        data=config.data,
        split=split,
        top1=evaluation.top1.value or 0.0,
        top5=None if evaluation.top5 is None else evaluation.top5.value,
        loss=evaluation.calibration.nll,
        val_top1=at.best_top1 or 0.0,
        best_epoch=at.best_epoch,
        parameters=evaluation.parameters,
        epochs=round(at.epoch + at.batch / run.train_data.steps, 4),
        steps=at.step,
        seconds=round(at.seconds, 3),
        seed=config.seed,
        folder=str(run.folder),
        command=run.command,
    )
    write_summary(run.folder, asdict(summary))
    return summary


def title(run: Trainer, splits: Splits) -> str:
    """Say in a line what is trained on what."""
    count = sum(p.numel() for p in run.model.parameters())
    place = f", into {run.folder}" if run.folder else ""
    goes_on = f", going on from step {run.at.step}" if run.at.step else ""
    return (
        f"{run.config.model} ({count / 1e6:.2f} M parameters) on {splits.name}: {len(splits.require('train')):,} "
        f"pictures, {len(splits.classes)} classes, batch {run.config.batch}, {run.precision}{place}{goes_on}"
    )


@contextmanager
def isolated_rng(config: TrainConfig) -> Iterator[None]:
    """Keep the host program's random state, thread count and determinism as they are; set the run's own inside."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        if config.threads:
            torch.set_num_threads(config.threads)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to repeat itself
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
