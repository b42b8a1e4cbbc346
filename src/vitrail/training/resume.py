"""Resume a run, or start it if that loses nothing.

A new run writes a marker file to its `state` folder, and its first saved state removes it. So a folder without states
but with the marker belongs to a run that was killed early: a restart loses nothing. Without the marker its states were
deleted, or not copied along, and a restart would overwrite the results of the run.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vitrail.atomic_io import make_folder, settle, write_file
from vitrail.errors import DataError, VitrailError
from vitrail.fused.train_blocks import training_kernels
from vitrail.training.checkpoint import UNSAVED, SavedCheckpoint, newest_state
from vitrail.training.log import NoLog, RunLog, tensorboard_missing
from vitrail.training.loop import validate
from vitrail.training.precision import slowness
from vitrail.training.run_dir import CONFIG, SUMMARY, write_environment
from vitrail.training.setup import loaders
from vitrail.training.trackers.tracker import tracked
from vitrail.training.trainer import Trainer
from vitrail.weights.custom_architecture import own_file
from vitrail.weights.manifest import verify

_WORK = ("weights/best", "weights/last", SUMMARY, "metrics.jsonl", "results.csv")


def resume(run: Trainer) -> None:
    """Continue from the newest intact state, or start if none was saved; open the logs at that point.

    Raises:
        VitrailError: there is no state any more, but results that a restart would overwrite.
        DataError: no state is intact, or the best weights so far are damaged.
    """
    folder = run.folder
    assert folder is not None
    state = newest_state(folder / "state", lambda text: run.reporter.note(f"warning: {text}"), run.world)
    if state is None:
        run.world.follow(lambda: refuse_loss(folder))
        run.world.follow(lambda: note_unsaved(folder))
    else:
        go_on(run, state)
    for text in (slowness(run.precision, run.world.device), _fallback(run), tensorboard_missing()):
        if text:
            run.reporter.note(text)
    if run.world.leads:
        file = own_file(run.config.model)
        facts = {**run.facts, "precision": run.precision, **({} if file is None else {"architecture_file": file})}
        write_environment(folder, facts, run.command)
        log = RunLog(folder, state.facts["lengths"] if state else {}, run.at.step)
        run.log = tracked(log, run.config.track, folder, asdict(run.config))
    else:
        run.log = NoLog()
    if run.at.best is not None and not run.world.follow(lambda: whole(folder / "weights" / "best")):
        stand_in(run, folder / "weights" / "best")


def _fallback(run: Trainer) -> str | None:
    """Return a warning if PyTorch computes the fused blocks of a run."""
    kernels, reason = training_kernels(run.model) or ("native", "")
    if kernels == "native":
        return None
    return (
        f"warning: native training kernels are not available ({reason.splitlines()[0]}): PyTorch computes the blocks, "
        "slower and with other rounding. `vitrail doctor` shows more."
    )


def go_on(run: Trainer, state: SavedCheckpoint) -> None:
    """Restore a run from a state, and report differences of the machine."""
    compare_data(run, state.facts.get("data"))
    run.restore(state)
    run.skipped = dict(state.facts.get("skipped", {}))
    if run.precision != state.facts["precision"]:
        run.precision = state.facts["precision"]
        kept: Any = replace(run.config, precision=run.precision)
        run.train_data, run.val_data = loaders(kept, run.world, run.task)
    for name, was in state.facts.items():
        if name in run.facts and name != "data" and run.facts[name] != was:
            now = run.facts[name]
            run.reporter.note(f"warning: {name} was {was} and is {now}: the run will not be bit for bit the same.")


def compare_data(run: Trainer, before: dict[str, Any] | None) -> None:
    """Refuse data that gives the outputs another meaning, and report other samples.

    Args:
        run: the run with its data.
        before: digests of the data that the state was trained on; None in states of earlier versions.

    Raises:
        DataError: the outputs would change their meaning, such as names in another order.
    """
    if before is None:
        return
    now = run.facts["data"]
    changed = [name for name, digest in before["outputs"].items() if now["outputs"].get(name) != digest]
    if changed:
        raise DataError(
            f"{run.folder} cannot go on: the {' and '.join(changed)} of its data are not those of its training, so\n"
            "its outputs would get another meaning. Bring the data back as it was, or train anew from its weights:\n"
            f"  vitrail train --config {run.folder}/{CONFIG} --weights {run.folder}/weights/best --out NEW_FOLDER"
        )
    for name, (count, digest) in before["samples"].items():
        length, other = now["samples"].get(name, (count, digest))
        if digest != other:
            told = f"{length:,} samples, {count:,} before" if length != count else f"{count:,} samples as before"
            run.reporter.note(
                f"warning: the {name} data is not what the run was trained on ({told}): "
                "the run goes on, but not bit for bit."
            )


def refuse_loss(folder: Path) -> None:
    """Raise an error if a restart would overwrite the results of a run.

    Args:
        folder: a run folder without a training state.

    Raises:
        VitrailError: it holds weights or logs, and no marker of a run without a saved state.
    """
    there = [name for name in _WORK if _holds_something(folder / name)]
    if not there or (folder / "state" / UNSAVED).is_file():
        return
    best = folder / "weights" / "best"
    what, weights = "train again", ""
    if best.is_dir():
        what, weights = "train on from its best weights", f" --weights {best}"
    raise VitrailError(
        f"{folder} cannot go on: it has no training state (state/step-*), but it has {', '.join(there)}.\n"
        "Beginning anew would write over that, so nothing was touched. Copy its state folder back;\n"
        f"or {what}, into a new folder:\n  vitrail train --config {folder / CONFIG}{weights} --out NEW_FOLDER"
    )


def note_unsaved(folder: Path) -> None:
    """Write the marker of a run without a saved state."""
    make_folder(folder / "state")
    write_file(folder / "state" / UNSAVED, b"No training state has been saved so far; --resume begins this run anew.\n")


def whole(best: Path) -> bool:
    """Return whether the best weights exist; damaged ones raise now, not after hours of training."""
    settle(best)
    if best.exists():
        try:
            verify(best)
        except DataError as error:
            raise DataError(
                f"{error}\nOr move {best} away: the weights of the saved state then take its place."
            ) from error
    return best.exists()


def stand_in(run: Trainer, best: Path) -> None:
    """Use the weights of the state as the best so far, if the best weights are missing."""
    run.reporter.note(f"warning: {best} is gone; the weights of the saved state take its place.")
    metrics = validate(run, run.val_data)
    if metrics is None:
        run.stop_now()
    else:
        run.take_as_best(metrics)


def _holds_something(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.stat().st_size > 0)
