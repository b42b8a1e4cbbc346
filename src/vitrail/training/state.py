"""Training state on disk: everything that the next update depends on, written so that no crash can lose it.

A state is a folder `state/step-<updates>`: safetensors and JSON with a manifest of checksums, never pickle. There are
no random-number states in it because there are none to keep: all randomness of a step is a function of the seed and of
the number of the step (`data/draw.py`, and `Session.seed_step` for dropped paths).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitrail.durable import replace_folder, settle, write_file
from vitrail.errors import DataError, ResourceError
from vitrail.weights.folder import write_tensors
from vitrail.weights.manifest import MANIFEST, dump_json, file_facts

KEPT = 2  # the newest, and one to fall back to
_SLACK = 64 * 1024  # JSON and folder entries beside the tensors


@dataclass
class Position:
    """Where a run stands between two updates.

    Args:
        step: updates done.
        epoch: epochs done.
        batch: batches of the current epoch done.
        seconds: time spent, over all sessions.
        loss_sum: sum of the losses since the last validation.
        rate: learning rate of the last update.
        validated: value of `step` at the last validation.
        best_top1: best validation top-1 so far, or None before the first validation.
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
    best_top1: float | None = None
    best_loss: float = float("inf")
    best_epoch: int = 0
    stale: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; an infinite `best_loss` is left out because JSON has no infinity."""
        return {key: value for key, value in asdict(self).items() if value != float("inf")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Position":
        """Read what `to_dict` wrote."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


@dataclass
class State:
    """What one state folder holds.

    Args:
        position: where the run stands.
        facts: plain values: lengths of the log files, what machine and how many threads.
        tensors: tables of tensors: `model`, `optimizer`, and `ema` where there is one.
    """

    position: Position
    facts: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def save_state(folder: Path, state: State) -> Path:
    """Write a state whole or not at all, then remove all but the newest `KEPT`.

    Args:
        folder: the run's `state` folder.
        state: what to write.

    Raises:
        ResourceError: the disk is full; earlier states are untouched and nothing half-written is left.
    """
    needed = sum(value.nbytes for table in state.tensors.values() for value in table.values()) + _SLACK
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"Cannot save the training state in {folder}: {needed:,} bytes needed, {free:,} bytes free.\n"
            "The previous state is untouched. Free some space, then go on with --resume."
        )
    target = folder / f"step-{state.position.step:08d}"
    with replace_folder(target) as new:
        for name, table in state.tensors.items():
            write_tensors(new / f"{name}.safetensors", {key: value.contiguous() for key, value in table.items()})
        values = {"position": state.position.to_dict(), "facts": state.facts, "tables": list(state.tensors)}
        write_file(new / "state.json", dump_json(values))
        files = {path.name: file_facts(path) for path in sorted(new.iterdir())}
        write_file(new / MANIFEST, _manifest(files))
    for old in list_states(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_state(path: Path) -> State:
    """Read a state after checking every file against the manifest.

    Raises:
        DataError: a file is missing or damaged; the message names it.
    """
    try:
        raw = (path / MANIFEST).read_bytes()
        files = json.loads(raw)["files"]
        if raw != _manifest(files):
            raise DataError(f"{path / MANIFEST} is damaged: its own checksum differs.")
        for name, stated in files.items():
            if file_facts(path / name) != stated:
                raise DataError(f"{path / name} is damaged: its size or checksum differs from the manifest.")
        values = json.loads((path / "state.json").read_bytes())
        tensors = {name: load_file(path / f"{name}.safetensors") for name in values["tables"]}
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return State(Position.from_dict(values["position"]), values["facts"], tensors)


def newest_state(folder: Path, warn: Callable[[str], None]) -> State | None:
    """Return the newest state that passes its checksums, or None where there is no state at all.

    Args:
        folder: the run's `state` folder.
        warn: is told of each damaged state that is passed over.

    Raises:
        DataError: there are states, and every one is damaged.
    """
    for left in folder.glob(".step-*.new-*"):
        settle(folder / left.name[1:].partition(".new-")[0])
    paths = list_states(folder)
    for path in paths:
        try:
            return load_state(path)
        except DataError as error:
            warn(f"{error} Falling back to the state before it.")
    if paths:
        raise DataError(
            f"Every training state in {folder} is damaged.\n"
            f"Start a new run, with --weights {folder.parent / 'weights' / 'best'} where that is whole."
        )
    return None


def list_states(folder: Path) -> list[Path]:
    """List the state folders, newest first."""
    return sorted(folder.glob("step-*"), key=lambda path: path.name, reverse=True)


def _manifest(files: dict[str, Any]) -> bytes:
    """Return the manifest of a state: size and checksum of each file, and of the manifest itself."""
    body = {"format_version": 1, "files": files}
    return dump_json({**body, "checksum": hashlib.sha256(dump_json(body)).hexdigest()})
