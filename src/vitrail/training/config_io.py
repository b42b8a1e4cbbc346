"""Config files: read values from YAML or JSON, and convert them to the types of the fields."""

import json
import types
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from vitrail.errors import VitrailError, unknown
from vitrail.training.aliases import field_of

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "nothing (null)"}


def read_values(path: str | Path) -> dict[str, Any]:
    """Read names and values from a YAML or JSON file.

    Raises:
        VitrailError: there is no such file, or it is neither.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        ...     _ = file.write("epochs: 3\\n"), file.flush()
        ...     read_values(file.name)
        {'epochs': 3}
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except FileNotFoundError as error:
        raise VitrailError(
            f"There is no file {path}. Give a YAML or JSON file, such as a run's config.yaml."
        ) from error
    except IsADirectoryError as error:
        raise VitrailError(f"{path} is a folder. Give the file in it: {path / 'config.yaml'}") from error
    except ValueError as error:
        raise VitrailError(f"{path} is not {'JSON' if path.suffix == '.json' else 'YAML'}: {error}") from error
    if not isinstance(values, dict):
        raise VitrailError(f"{path} holds no names with values. Write one a line, such as `epochs: 10`.")
    return values


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)) from error


def typed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` in the types of the fields of the dataclass `cls`.

    Only lossless conversions are made: an integer to a float, a list to a tuple, and text such as 1e-3, which YAML does
    not parse as a number.

    Raises:
        VitrailError: unknown field, with the nearest ones; value of the wrong type, with the right one.

    Example:
        >>> from vitrail.training.config import TrainConfig
        >>> typed(TrainConfig, {"lr": "1e-3", "warmup": 5, "set": ["dim=48"]})
        {'lr': 0.001, 'warmup': 5.0, 'set': ('dim=48',)}
        >>> typed(TrainConfig, {"epochs": "ten"})
        Traceback (most recent call last):
        ...
        vitrail.errors.VitrailError: epochs is 'ten'; a whole number or nothing (null) is needed.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in fields(cls)}
    values = {name if name in kinds else field_of(str(name)): value for name, value in values.items()}
    for name in values:
        if name not in kinds:
            raise unknown("training option", str(name), kinds)
    return {name: _fit(name, kinds[name], value) for name, value in values.items()}


def _fit(name: str, kind: Any, value: Any) -> Any:
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for part in parts:
        fitting = _FITTING.get(get_origin(part) or part, _exactly)(part, value)
        if fitting is not _NOT:
            return fitting
    raise VitrailError(f"{name} is {value!r}; {' or '.join(map(_in_words, parts))} is needed.")


_NOT = object()
"""Stands for a value that does not fit; None is a value."""


def _exactly(kind: Any, value: Any) -> Any:
    return value if type(value) is kind else _NOT


def _number(kind: Any, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _NOT
    try:
        return float(value)
    except ValueError:
        return _NOT


def _text(kind: Any, value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)  # freeze: 2, data: 2024
    return str(value) if whole else _exactly(str, value)


def _choice(kind: Any, value: Any) -> Any:
    return value if value in get_args(kind) else _NOT


def _many(kind: Any, value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value) else _NOT


_FITTING = {float: _number, str: _text, Literal: _choice, tuple: _many}


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    return "a list of words" if get_origin(kind) is tuple else _WORDS[kind]
