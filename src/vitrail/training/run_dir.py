"""Run folder: its name, config, environment and summary."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from vitrail import __version__
from vitrail.atomic_io import check_writable_folder, flush_folder, make_folder, write_file
from vitrail.errors import DataError, VitrailError
from vitrail.training.checkpoint import UNSAVED, list_states
from vitrail.training.config import RUNTIME, RunConfig
from vitrail.training.config_io import read_values
from vitrail.weights.custom_architecture import need_own_file
from vitrail.weights.manifest import dump_json

BASE = Path("runs")
CONFIG, ENVIRONMENT, SUMMARY, EVALUATION = "config.yaml", "env.json", "summary.json", "evaluation.json"


def settle_config(config: RunConfig) -> tuple[RunConfig, Path | None]:
    """Return the config to run, and the run folder to resume, if there is one.

    A resumed run keeps the config in its folder; only runtime fields (`RUNTIME`) may change, or all but the task of a
    run without a saved state, which begins anew. With `resume=auto` all fields of `config` count as given; with a
    folder, only those that differ from their default.

    Raises:
        VitrailError: there is no such run, or a given field contradicts its config.
    """
    if config.resume is None:
        return config, None
    given = {field.name for field in fields(config)}
    if config.resume == "auto":
        if config.out is None:
            raise VitrailError("resume=auto needs to know where: give the run folder with --out.")
        folder = Path(config.out)
        if not (folder / CONFIG).exists():
            return replace(config, resume=None), None
    else:
        folder = Path(config.resume)
        default = type(config)()
        given = {name for name in given if getattr(config, name) != getattr(default, name)}
    stored = read_config(folder)
    need_own_file(stored.model, _environment(folder).get("architecture_file"), folder)
    changed = changed_fields(config, stored, given)
    free = given & set(RUNTIME) | (changed - {"task"} if begins_anew(folder) else set())
    refuse_changes(config, stored, changed - free)
    anew = {name: getattr(config, name) for name in free}
    return replace(stored, **{**anew, "out": str(folder), "resume": None}), folder


def changed_fields(config: RunConfig, stored: RunConfig, given: Iterable[str]) -> set[str]:
    """Return the fields, of those given, that a run does not take over from its new config and that differ."""
    return {name for name in set(given) - set(RUNTIME) if _is_changed(config, stored, name)}


def refuse_changes(config: RunConfig, stored: RunConfig, changed: Iterable[str]) -> None:
    """Refuse to go on with a run with other values of these fields.

    Raises:
        VitrailError: there is one.
    """
    for name in sorted(changed):
        raise VitrailError(
            f"This run was begun with {name}={getattr(stored, name, None)}; it cannot go on with"
            f" {name}={getattr(config, name)}.\n"
            "Leave it out to go on, or start a new run (--weights takes the weights along)."
        )


_FILLED_IN = ("batch", "epochs", "lr", "layer_decay", "warmup", "imgsz")
"""Fields whose default depends on weights and data; a run's own config has their values."""


def _is_changed(config: RunConfig, stored: RunConfig, name: str) -> bool:
    """Return whether a field has another value than that of the run; `auto` and defaults of a recipe leave it open."""
    was, now = getattr(stored, name, None), getattr(config, name)
    if name == "set" and config.model == "auto" and config.weights is not None:  # fields of the weights come first
        return tuple(was or ())[len(was or ()) - len(now) :] != tuple(now)
    return was != now and now != "auto" and not (name in _FILLED_IN and now is None)


def begins_anew(folder: Path) -> bool:
    """Return whether a run has no saved state so far, by its marker: then a resumed run begins at the first update."""
    return (folder / "state" / UNSAVED).is_file() and not list_states(folder / "state")


def refuse_folder(config: RunConfig, begun: Path | None) -> None:
    """Check the run folder, before data and model are opened.

    Raises:
        VitrailError: `out` holds a run already, or other files; or it is not writable.
    """
    if begun is None and config.out is not None:
        folder = Path(config.out)
        if (folder / CONFIG).exists():
            raise VitrailError(
                f"{folder} holds a run already. Go on with it: --resume {folder}\n"
                "Or choose another --out, or remove the folder."
            )
        if folder.exists() and (not folder.is_dir() or any(path.name != ".lock" for path in folder.iterdir())):
            raise VitrailError(f"{folder} is taken by other files. Choose another --out.")
    check_writable_folder(begun or config.out or BASE / config.task)


def new_folder(config: RunConfig) -> Path:
    """Create the folder of a new run: `out`, or the first free name for its data and model.

    Raises:
        VitrailError: `out` was taken meanwhile, or cannot be created.
    """
    if config.out is not None:
        refuse_folder(config, None)
        folder = Path(config.out)
        make_folder(folder)
        return folder
    base = BASE / config.task
    make_folder(base)
    stem = f"{Path(config.data).name.split('.')[0] or 'data'}-{config.model}"
    number = 1
    while True:
        folder = base / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        flush_folder(base)
        return folder


def write_config(folder: Path, config: RunConfig) -> None:
    """Write the resolved config of a run, with numbers for `auto`."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    write_file(folder / CONFIG, yaml.safe_dump(values, sort_keys=False).encode())


def read_config(folder: Path) -> RunConfig:
    """Read the config of a run.

    Raises:
        VitrailError: there is no run in that folder.
        DataError: the file is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise VitrailError(
            f"There is no run in {folder}: it has no {CONFIG}. Give the run folder, the one that --out named."
        )
    try:
        return RunConfig.from_dict(read_values(path))
    except VitrailError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _environment(folder: Path) -> dict[str, Any]:
    """Return the environment of a run, as far as it can be read; it is not needed to resume."""
    try:
        values = json.loads((folder / ENVIRONMENT).read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_environment(folder: Path, facts: dict[str, Any], command: str | None) -> None:
    """Write the environment of the run: versions, machine, command."""
    values = {
        "vitrail": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "command": command or " ".join(sys.argv),
        **facts,
    }
    write_file(folder / ENVIRONMENT, dump_json(values))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write the result of a run."""
    write_file(folder / SUMMARY, dump_json(summary))
