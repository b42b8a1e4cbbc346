"""Training state on disk: everything that the next update depends on, written so that no crash can lose it.

A state is a folder `state/step-<updates>`: safetensors (`shards.py`) and JSON with a manifest of checksums, never
pickle. It counts only when all of it is there: the folder gets its name last. There are no random-number states in it
because there are none to keep: all randomness of a step is a function of the seed and of the number of the step
(`data/stateless_rng.py`, and `Session.seed_step` for dropped paths).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.atomic_io import make_folder, replace_folder, settle, write_file
from vitrail.errors import DataError, ResourceError, VitrailError
from vitrail.training.distributed import SingleProcess
from vitrail.training.sharded_checkpoint import SUFFIX
from vitrail.weights.manifest import MANIFEST, dump_json, file_facts

KEPT = 2  # the newest, and one to fall back to
STATE = "state.json"
UNSAVED = "none-yet.txt"  # says that no state has been saved so far; see `resume.py`
FORMAT_VERSION = 2
ALONE = SingleProcess(torch.device("cpu"))
_SLACK = 64 * 1024  # JSON and folder entries beside the tensors


@dataclass
class TrainingProgress:
    """Where a run stands between two updates.

    Args:
        step: updates done.
        epoch: epochs done.
        batch: batches of the current epoch done.
        seconds: time spent, over all sessions.
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
        """Return plain values; those that are not finite are left out because JSON has none."""
        values = asdict(self).items()
        return {key: value for key, value in values if not isinstance(value, float) or isfinite(value)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingProgress":
        """Read what `to_dict` wrote, or an older version, which had the name of the metric in the key of `best`."""
        known = {field.name for field in fields(cls)}
        read = {key if key in known or not key.startswith("best_") else "best": value for key, value in values.items()}
        return cls(**{key: value for key, value in read.items() if key in known})


@dataclass
class Checkpoint:
    """What is saved.

    Args:
        position: where the run stands.
        facts: plain values: lengths of the log files, what machine and how many threads.
        tensors: tables of tensors, whole or shards: `model`, `optimizer`, and `ema` where there is one.
    """

    position: TrainingProgress
    facts: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class SavedCheckpoint:
    """A state that lies on the disk, checked; `read` takes its tensors.

    Args:
        path: its folder.
        position: where the run stood.
        facts: plain values.
    """

    path: Path
    position: TrainingProgress
    facts: dict[str, Any]

    def read(self, tensors: Mapping[str, dict[str, Tensor]], world: SingleProcess = ALONE) -> None:
        """Fill the tensors of some tables, in all processes of a world."""
        world.read(self.path, _flat(tensors))


def save_state(folder: Path, state: Checkpoint, world: SingleProcess = ALONE) -> Path:
    """Write a state whole or not at all, then remove all but the newest `KEPT`; every process takes part.

    The first process makes a folder beside the target, all write into it what they hold, and only when each has flushed
    its part does the first one seal it with a manifest and give it its name.

    Args:
        folder: the run's `state` folder.
        state: what to write.
        world: the processes that hold it.

    Raises:
        ResourceError: the disk is full; earlier states are untouched and nothing half-written is left.
    """
    tensors = _flat(state.tensors)
    needed = sum(value.nbytes for value in tensors.values())  # of a shard, this is the size of the whole
    target = folder / f"step-{state.position.step:08d}"
    with ExitStack() as stack:
        new = world.follow(lambda: _begin(stack, target, needed))
        parts = world.each(lambda: {name: file_facts(new / name) for name in world.write(new, tensors)})
        files = {name: facts for part in parts for name, facts in part.items()}
        world.follow(lambda: _finish(stack, new, state, files, needed))
    return target


def _begin(stack: ExitStack, target: Path, needed: int) -> Path:
    """Make the folder in which a state is built."""
    make_folder(target.parent)
    needed, free = needed + _SLACK, shutil.disk_usage(target.parent).free
    if needed > free:
        raise ResourceError(
            f"Cannot save the training state in {target.parent}: {needed:,} bytes needed, {free:,} bytes free.\n"
            "The previous state is untouched. Free some space, then go on with --resume."
        )
    return stack.enter_context(replace_folder(target))


def _finish(stack: ExitStack, new: Path, state: Checkpoint, files: dict[str, Any], needed: int) -> None:
    """Seal a state whose tensors are written, give it its name, and remove the oldest."""
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
    """Return the newest state that passes its checksums, or None where there is no state at all.

    Every process takes part, and checks its share of the files.

    Args:
        folder: the run's `state` folder.
        warn: is told of each damaged state that is passed over.
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
    """List the state folders, newest first."""
    return sorted(folder.glob("step-*"), key=lambda path: path.name, reverse=True)


def _settled(folder: Path) -> list[Path]:
    """List the states, newest first, after clearing away what killed processes left half-written."""
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
    """Say what is wrong with a state, as far as this process looks; None where nothing is."""
    try:
        check_state(path, world.rank, world.size)
    except DataError as error:
        return str(error)
    return None


def _flat(tensors: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Put tables of tensors into one, by `table.name`."""
    return {f"{table}.{name}": value for table, values in tensors.items() for name, value in values.items()}


def _manifest(files: dict[str, Any], version: int = FORMAT_VERSION) -> bytes:
    """Return the manifest of a state: size and checksum of each file, and of the manifest itself."""
    body = {"format_version": version, "files": files}
    return dump_json({**body, "checksum": hashlib.sha256(dump_json(body)).hexdigest()})
