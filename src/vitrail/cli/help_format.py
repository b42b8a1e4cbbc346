"""Help format of a verb's fields: readable metavars, and no default of None."""

import types
from collections.abc import Collection
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_WORDS = {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH"}


def as_shown(cls: Any) -> Any:
    """Return a class with the fields and docstrings of a verb's dataclass, for its help."""
    from tyro.conf import arg

    hints = get_type_hints(cls, include_extras=True)
    body: dict[str, Any] = {"__annotations__": {}, "__doc__": cls.__doc__, "__module__": cls.__module__}
    for own in fields(cls):
        kind = _bare(hints[own.name])
        if not own.init or kind is bool:
            continue
        alone = any(str(mark) == "Positional" for mark in get_args(hints[own.name])[1:])
        word = _place(own, kind) if alone else metavar(kind)
        shown = arg(metavar=word, help_behavior_hint=_hint(own))
        body["__annotations__"][own.name] = Annotated[hints[own.name], shown]
        if own.default is not MISSING:
            body[own.name] = field(default=own.default)
    return dataclass(frozen=True)(type(cls.__name__, (cls,), body))


def metavar(kind: Any) -> str:
    """Return the metavar of a flag's value.

    Example:
        >>> metavar(str | None), metavar(tuple[str, ...]), metavar(float | Literal["auto"])
        ('TEXT', 'TEXT ...', 'FLOAT|auto')
    """
    if get_origin(kind) in (Union, types.UnionType):
        return "|".join(metavar(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if _is_collection(kind):
        return f"{metavar(get_args(kind)[0])} ..."
    return _WORDS.get(kind, "VALUE")


def _place(own: Field, kind: Any) -> str:
    """Return the metavar of a positional argument: its choices or its name, in brackets if it is optional."""
    word = metavar(kind) if get_origin(kind) is Literal else own.name.upper() + " ..." * _is_collection(kind)
    return word if own.default is MISSING else f"[{word}]"


def _hint(own: Field) -> Any:
    if own.default is MISSING and own.default_factory is MISSING:
        return "(required)"
    return lambda label: "" if label in ("", "''", "None") else f"(default: {label})"


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_collection(kind: Any) -> bool:
    outer = get_origin(kind) or kind
    return isinstance(outer, type) and issubclass(outer, Collection) and not issubclass(outer, str | bytes)
