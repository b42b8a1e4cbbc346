"""Sweeps: trials of optuna as runs, with a journal that several processes share."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from vitrail.atomic_io import make_folder
from vitrail.errors import VitrailError
from vitrail.tasks import find_task
from vitrail.tasks.formatting import format_value
from vitrail.training.config import RunConfig
from vitrail.training.config_io import typed
from vitrail.training.loop import NonFiniteLoss
from vitrail.training.reporters import NullReporter, Reporter
from vitrail.training.search_space import SearchRange
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train

JOURNAL = "journal.log"
_STUDY = "sweep"


class SweepTrial(NamedTuple):
    """A finished trial.

    Args:
        number: its number.
        values: its values of the search space.
        best: best validation metric.
        folder: its run folder.
    """

    number: int
    values: dict[str, Any]
    best: float
    folder: Path


def sweep(
    config: RunConfig,
    space: Sequence[SearchRange],
    trials: int,
    root: Path,
    reporter: Reporter | None = None,
    stop: StopRequest | None = None,
) -> list[SweepTrial]:
    """Train runs with values that optuna suggests until the sweep has `trials` finished ones; the best comes first.

    Several processes, also of several machines with a common folder, may work on one sweep: the journal hands out the
    trials. A killed trial is continued by the next process that starts.

    Args:
        config: settings of every run.
        space: what the trials change.
        trials: number of trials of the whole sweep.
        root: folder of the journal and of the runs, `trial-0000` and on.
        reporter: receives the progress of the runs.
        stop: request to stop.

    Raises:
        VitrailError: optuna is missing, or the sweep in this folder has another search space.
        Interrupted: a stop was requested; the trial continues when the sweep is started again.
    """
    reporter, stop = reporter or NullReporter(), stop or StopRequest()
    spec = find_task(config.task).metrics[0]
    study = open_study(root, "maximize" if spec.higher_is_better else "minimize")
    _check_space(study, space)
    while (claim := _claim(study, space, trials, root)) is not None:
        number, values, lock = claim
        reporter.note(
            f"Trial {number}: " + ", ".join(f"{name} {format_value(value)}" for name, value in values.items())
        )
        try:
            _work(study, number, replace(config, **typed(type(config), values)), root, reporter, stop)
        finally:
            lock.release()
    return finished(study, root)


def open_study(root: Path, direction: str) -> Any:
    """Open the study of a sweep folder, or create it.

    Raises:
        VitrailError: optuna is missing.
    """
    if find_spec("optuna") is None:
        raise VitrailError("A sweep needs optuna, which is missing: pip install optuna")
    optuna, storages = import_module("optuna"), import_module("optuna.storages")
    journal = import_module("optuna.storages.journal")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make_folder(root)
    storage = storages.JournalStorage(journal.JournalFileBackend(str(root / JOURNAL)))
    sampler = optuna.samplers.TPESampler(seed=None)  # several processes must not suggest the same values
    return optuna.create_study(
        storage=storage, study_name=_STUDY, direction=direction, sampler=sampler, load_if_exists=True
    )


def finished(study: Any, root: Path) -> list[SweepTrial]:
    """Return the finished trials, the best first."""
    states = import_module("optuna.trial").TrialState
    done = [one for one in study.get_trials(deepcopy=False) if one.state == states.COMPLETE]
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    done.sort(key=lambda one: sign * one.value)
    return [SweepTrial(one.number, dict(one.params), float(one.value), root / _name(one.number)) for one in done]


def _claim(
    study: Any, space: Sequence[SearchRange], trials: int, root: Path
) -> tuple[int, dict[str, Any], FileLock] | None:
    """Return a trial that this process may work on with its lock: an interrupted one, else a new one; None at the end.

    The lock of a trial is released by the kernel when its process ends in any way, so a killed trial is found.
    """
    states = import_module("optuna.trial").TrialState
    with FileLock(root / ".claims.lock"):
        known = study.get_trials(deepcopy=False)
        for one in known:
            if one.state == states.RUNNING and one.params and (lock := _hold(root, one.number)) is not None:
                return one.number, dict(one.params), lock
        if sum(one.state in (states.COMPLETE, states.RUNNING) for one in known) >= trials:
            return None
        trial = study.ask()
        lock = _hold(root, trial.number)
        assert lock is not None, "a new trial is nobody else's"
        return trial.number, {one.name: one.suggest(trial) for one in space}, lock


def _hold(root: Path, number: int) -> FileLock | None:
    """Return the held lock of a trial, None if another process has it."""
    lock = FileLock(root / f".{_name(number)}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _work(study: Any, number: int, config: RunConfig, root: Path, reporter: Reporter, stop: StopRequest) -> None:
    """Train a trial and give its result to the study; one that diverges failed."""
    states = import_module("optuna.trial").TrialState
    folder = root / _name(number)
    try:
        summary = train(replace(config, out=str(folder), resume="auto"), reporter, stop)
    except Interrupted as stopped:
        raise Interrupted(stopped.code, str(root)) from stopped
    except NonFiniteLoss as error:
        reporter.note(f"Trial {number} failed: {str(error).partition(chr(10))[0]}")
        study.tell(number, state=states.FAIL)
        return
    study.tell(number, next(iter(summary.validation.values())))


def _check_space(study: Any, space: Sequence[SearchRange]) -> None:
    names = {one.name for one in space}
    for one in study.get_trials(deepcopy=False):
        if one.params and set(one.params) != names:
            raise VitrailError(
                f"This sweep searches {', '.join(sorted(one.params))}, and --space names {', '.join(sorted(names))}.\n"
                "Choose another --out for another search space."
            )


def _name(number: int) -> str:
    return f"trial-{number:04d}"
