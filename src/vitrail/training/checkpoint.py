"""Training state on disk: all state that the next update depends on, written atomically.

A state is a folder `state/step-<updates>`: safetensors (`sharded_checkpoint.py`) and JSON with a manifest of checksums,
never pickle. The folder gets its final name last, so only complete states count. No random-number state is saved: all
randomness of a step is a function of the seed and the step number (`data/stateless_rng.py`, and `Trainer.seed_step` for
drop path).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vitrail.atomic_io import make_folder, replace_folder, settle, write_file
from vitrail.errors import DataError, ResourceError, VitrailError
from vitrail.training.distributed import SingleProcess
from vitrail.training.sharded_checkpoint import SUFFIX
from vitrail.weights.manifest import MANIFEST, dump_json, file_facts

KEPT = 2  # the newest, and one as a fallback
STATE = "state.json"
Fact = TypeVar("Fact")
UNSAVED = "none-yet.txt"  # marks a run without a saved state; see `resume.py`
FORMAT_VERSION = 2
ALONE = SingleProcess(torch.device("cpu"))
_SLACK = 64 * 1024  # for JSON and folder entries


@dataclass
class TrainingProgress:
    """Progress of a run between two updates.

    Args:
        step: updates done.
        epoch: epochs done.
        batch: batches of the current epoch done.
        seconds: time spent, including that before a resume.
        loss_sum: sum of the losses since the last validation.
        rate: learning rate of the last update.
        validated: value of `step` at the last validation.
        best: best value of the task's first metric so far, or None before the first validation.
        best_loss: validation loss there.
        best_epoch: epochs done there.
        stale: validations since then.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    rate: float = 0.0
    validated: int = 0
    best: float | None = None
    best_loss: float = float("inf")
    best_epoch: int = 0
    stale: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; non-finite ones are left out because JSON has none."""
        values = asdict(self).items()
        return {key: value for key, value in values if not isinstance(value, float) or isfinite(value)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingProgress":
        """Build from the dict of `to_dict`; older versions have the name of the metric in the key of `best`."""
        known = {field.name for field in fields(cls)}
        read = {key if key in known or not key.startswith("best_") else "best": value for key, value in values.items()}
        return cls(**{key: value for key, value in read.items() if key in known})


@dataclass
class Checkpoint:
    """Contents of a training state.

    Args:
        position: progress of the run.
        facts: plain values: lengths of the log files, machine, number of threads.
        tensors: tables of tensors, full or sharded: `model`, `optimizer`, and `ema` if there is one.
    """

    position: TrainingProgress
    facts: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class SavedCheckpoint:
    """A verified training state on disk; `read` loads its tensors.

    Args:
        path: its folder.
        position: progress of the run when it was saved.
        facts: plain values.
    """

    path: Path
    position: TrainingProgress
    facts: dict[str, Any]

    def read(self, tensors: Mapping[str, dict[str, Tensor]], world: SingleProcess = ALONE) -> None:
        """Load tables of tensors in-place; every process takes part."""
        world.read(self.path, _flat(tensors))


def save_state(folder: Path, state: Checkpoint, world: SingleProcess = ALONE) -> Path:
    """Write a state atomically, then remove all but the newest `KEPT`; every process takes part.

    Rank 0 creates a temporary folder next to the target, every rank writes its tensors there, and after all have
    flushed them, rank 0 writes the manifest and renames the folder.

    Args:
        folder: the run's `state` folder.
        state: contents to write.
        world: the processes that hold it.

    Raises:
        ResourceError: the disk is full; earlier states are untouched and no partial state is left.
    """
    tensors = _flat(state.tensors)
    needed = sum(value.nbytes for value in tensors.values())  # of a sharded tensor, this is the full size
    target = folder / f"step-{state.position.step:08d}"
    with ExitStack() as stack:
        new = world.follow(lambda: _begin(stack, target, needed))
        parts = world.each(lambda: {name: file_facts(new / name) for name in world.write(new, tensors)})
        files = {name: facts for part in parts for name, facts in part.items()}
        world.follow(lambda: _finish(stack, new, state, files, needed))
    return target


def _begin(stack: ExitStack, target: Path, needed: int) -> Path:
    """Create the temporary folder of a state."""
    make_folder(target.parent)
    needed, free = needed + _SLACK, shutil.disk_usage(target.parent).free
    if needed > free:
        raise ResourceError(
            f"Cannot save the training state in {target.parent}: {needed:,} bytes needed, {free:,} bytes free.\n"
            "The previous state is untouched. Free some space, then go on with --resume."
        )
    return stack.enter_context(replace_folder(target))


def _finish(stack: ExitStack, new: Path, state: Checkpoint, files: dict[str, Any], needed: int) -> None:
    """Write the manifest of a state after its tensors, rename its folder, and remove old states."""
    there = {path.name for path in new.iterdir()}
    if there != set(files) or sum(facts["size"] for facts in files.values()) < needed:
        raise VitrailError(
            f"The processes wrote {len(files)} files of a training state, and {new.parent} has {len(there)} of them.\n"
            "All processes must write to one disk: put the run folder (--out) on a file system that they share."
        )
    write_file(new / STATE, dump_json({"position": state.position.to_dict(), "facts": state.facts}))
    files = {**files, STATE: file_facts(new / STATE)}
    write_file(new / MANIFEST, _manifest(files))
    stack.close()
    (new.parent / UNSAVED).unlink(missing_ok=True)
    for old in list_states(new.parent)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def newest_state(folder: Path, warn: Callable[[str], None], world: SingleProcess = ALONE) -> SavedCheckpoint | None:
    """Return the newest state that passes its checksums, or None if there is none.

    Every process takes part, and checks its share of the files.

    Args:
        folder: the run's `state` folder.
        warn: called with a message for each damaged state that is skipped.
        world: the processes that will read it.

    Raises:
        DataError: there are states, and none passes.
    """
    found: list[str] = []
    for path in world.follow(lambda: _settled(folder)):
        faults = [fault for fault in world.each(lambda path=path: _fault(path, world)) if fault]
        if not faults:
            values = json.loads((path / STATE).read_bytes())
            return SavedCheckpoint(path, TrainingProgress.from_dict(values["position"]), values["facts"])
        warn(f"{faults[0]} Falling back to the state before it.")
        found += faults
    if found:
        raise DataError(
            f"No training state in {folder} can be used. {found[0]}\n"
            f"Start a new run, with --weights {folder.parent / 'weights' / 'best'} where that is whole."
        )
    return None


def list_states(folder: Path) -> list[Path]:
    """List the state folders, newest first.

    Example:
        >>> list_states(Path("no/such/folder"))
        []
    """
    return sorted(folder.glob("step-*"), key=lambda path: path.name, reverse=True)


def saved_fact(states: Iterable[Path], name: str, default: Fact) -> Fact:
    """Return a fact of the first of some states that can be read, such as what the model must be before it is filled.

    A damaged state is passed over here; `newest_state` reports it.
    """
    for path in states:
        try:
            return json.loads((path / STATE).read_bytes())["facts"].get(name, default)
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    return default


def _settled(folder: Path) -> list[Path]:
    """List the states, newest first, after removing partial ones of killed processes."""
    for left in folder.glob(".step-*.new-*"):
        settle(folder / left.name[1:].partition(".new-")[0])
    return list_states(folder)


def check_state(path: Path, rank: int = 0, size: int = 1) -> None:
    """Compare the files of a state with its manifest: all names, and the content of every `size`-th file.

    Raises:
        DataError: a file is missing, damaged or foreign; the message names it.
    """
    try:
        raw = (path / MANIFEST).read_bytes()
        manifest = json.loads(raw)
        files, version = manifest["files"], manifest["format_version"]
        if raw != _manifest(files, version):
            raise DataError(f"{path / MANIFEST} is damaged: its own checksum differs.")
        if version != FORMAT_VERSION:
            raise DataError(f"{path} is of format {version}; this version of Vitrail reads {FORMAT_VERSION}.")
        for name in files:
            if not (path / name).is_file():
                raise DataError(f"{path / name} is missing.")
        for stray in path.glob(f"*{SUFFIX}"):
            if stray.name not in files:
                raise DataError(f"{stray} does not belong to this state: its manifest does not list it.")
        for name in sorted(files)[rank::size]:
            if file_facts(path / name) != files[name]:
                raise DataError(f"{path / name} is damaged: its size or checksum differs from the manifest.")
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _fault(path: Path, world: SingleProcess) -> str | None:
    """Return the fault of a state in the files that this rank checks, or None."""
    try:
        check_state(path, world.rank, world.size)
    except DataError as error:
        return str(error)
    return None


def _flat(tensors: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Flatten tables of tensors into one, with keys `table.name`."""
    return {f"{table}.{name}": value for table, values in tensors.items() for name, value in values.items()}


def _manifest(files: dict[str, Any], version: int = FORMAT_VERSION) -> bytes:
    """Return the manifest of a state: size and checksum of each file, and of the manifest itself."""
    body = {"format_version": version, "files": files}
    return dump_json({**body, "checksum": hashlib.sha256(dump_json(body)).hexdigest()})
