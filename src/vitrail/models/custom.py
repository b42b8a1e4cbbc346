"""Architectures from files of one's own, each written as a file of this room is: a config, `build` and `VARIANTS`.

`VITRAIL_MODELS` names them, one or more paths parted as in PATH. Every verb and every process that a verb starts then
knows their variants as it knows its own. Naming a file runs it; nothing that is read, no model folder, can name one.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vitrail.errors import ResourceError, VitrailError

if TYPE_CHECKING:
    from vitrail.parts.model import Model

VARIABLE = "VITRAIL_MODELS"
ROOM = "vitrail.models"
NEEDED = {"preprocess", "num_classes", "in_channels"}


def added(paths: str, families: Iterable[str], names: Iterable[str]) -> Iterator[ModuleType]:
    """Open the files that a variable like PATH names.

    Args:
        paths: value of the variable.
        families: names of architectures that are taken.
        names: names of variants that are taken.

    Raises:
        VitrailError: a file is not there, does not run, holds no architecture, or takes a name that is taken.
    """
    families, names = set(families), set(names)
    for path in map(Path, _paths(paths)):
        if path.stem in families:
            raise _refused(path, f"there is an architecture '{path.stem}' already; give the file another name")
        module = _open(path)
        _check(path, module, names)
        families.add(path.stem)
        names.update(module.VARIANTS)
        yield module


def own_fault(error: BaseException) -> str | None:
    """Return file, line and message of an error raised in a custom model file; None for other errors.

    An error that another one caused counts as its cause does.
    """
    places = {str(Path(text).resolve()): text for text in _paths(os.environ.get(VARIABLE, ""))}
    passed: BaseException | None = error
    while passed is not None:
        own = [frame for frame in traceback.extract_tb(passed.__traceback__) if frame.filename in places]
        if own:
            return f"{places[own[-1].filename]}:{own[-1].lineno}: {type(passed).__name__}: {_text(passed)}"
        passed = passed.__cause__ or (None if passed.__suppress_context__ else passed.__context__)
    return None


def built(name: str, build: Callable[[Any], "Model"], config: object, overrides: dict[str, Any]) -> "Model":
    """Build a model from its config; an error names the overridden fields, or the line of a custom file.

    Raises:
        VitrailError: the numbers do not fit together, or the result is no `Model`.
        ResourceError: it does not fit into memory.
    """
    try:
        model = build(config)
    except VitrailError:
        raise
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            sizes = ", ".join(f"{key}={value}" for key, value in overrides.items() if isinstance(value, int | tuple))
            raise ResourceError(
                f"{name} with {sizes or 'these numbers'} does not fit into memory. Take a smaller image_size or model."
            ) from error
        numbers = f" with {overrides}" if overrides else ""
        raise VitrailError(f"Cannot build {name}{numbers}: {own_fault(error) or error}") from error
    if not isinstance(model, import_module("vitrail.parts.model").Model):  # imports torch, so not before
        raise VitrailError(f"Cannot build {name}: its build(config) returns a {type(model).__name__}, not a Model.")
    return model


def _paths(text: str) -> list[str]:
    return list(dict.fromkeys(path for path in text.split(os.pathsep) if path))  # such variables often repeat


def _text(error: BaseException) -> str:
    """Return the first line of an error message."""
    return str(getattr(error, "msg", None) or error).partition("\n")[0]


def _open(path: Path) -> ModuleType:
    """Run a file, once in a process, as a module of this room."""
    name, place = f"{ROOM}.{path.stem}", str(path.resolve())
    known = sys.modules.get(name)
    if known is not None and known.__file__ == place:
        return known
    spec = spec_from_file_location(name, place) if path.is_file() and path.stem.isidentifier() else None
    if spec is None or spec.loader is None:
        raise _refused(path, "it is not there, or is no Python file whose name is a word")
    module = module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its module up while it is made
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _refused(path, _where(error, place)) from error
    return module


def _where(error: Exception, place: str) -> str:
    """Return the error message with the line of the file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    return f"{type(error).__name__}: {_text(error)}" + (f" (line {line})" if line else "")


def _check(path: Path, module: ModuleType, names: set[str]) -> None:
    variants = getattr(module, "VARIANTS", None)
    if not callable(getattr(module, "build", None)) or not isinstance(variants, dict) or not variants:
        raise _refused(path, "it needs build(config) and VARIANTS, a dict from names to configs")
    for name, config in variants.items():
        if name in names:
            raise _refused(path, f"there is a model '{name}' already; give the variant another name")
        made = is_dataclass(config) and not isinstance(config, type)
        held = {field.name for field in fields(config)} if made else set()
        if not held >= NEEDED:
            missing = ", ".join(sorted(NEEDED - held))
            raise _refused(path, f"the config of '{name}' must be a frozen dataclass with the fields {missing}")


def _refused(path: Path, reason: str) -> VitrailError:
    return VitrailError(f"{VARIABLE} names {path}: {reason}.\nHow such a file looks: docs/token_mixer.md")
