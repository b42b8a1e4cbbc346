"""Help of a verb: plain words for values, no empty defaults, and sections if the verb has many flags."""

import ast
import inspect
import types
from collections.abc import Collection
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

SECTIONED = "in_sections"
"""Mark of a class whose nested dataclasses are sections."""

_WORDS = {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH"}


def as_shown(cls: type) -> type:
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


def in_sections(cls: Any, order: Collection[str]) -> type:
    """Return a class to print the help of a verb from, with a nested dataclass for each section of its flags.

    Args:
        cls: class of the verb; its `SECTIONS` name the fields of each section.
        order: names of the usual sections, in order; others come before `hardware`.
    """
    shown, docs = as_shown(cls), field_docs(cls)
    hints, defaults = get_type_hints(shown, include_extras=True), {own.name: own for own in fields(shown)}

    def fields_of(names: Collection[str]) -> list[Any]:
        from tyro.conf import arg

        return [
            (name, Annotated[hints[name], arg(help=docs.get(name, ""))], field(default=defaults[name].default))
            for name in names
        ]

    named = {name for names in cls.SECTIONS.values() for name in names}
    others = [name for name in cls.SECTIONS if name not in order]
    sections = [name for name in order if name in cls.SECTIONS]
    at = sections.index("hardware") if "hardware" in sections else len(sections)
    parts: list[Any] = fields_of([name for name in defaults if name not in named])
    for name in [*sections[:at], *others, *sections[at:]]:
        part = make_dataclass(name, fields_of([n for n in cls.SECTIONS[name] if n in defaults]), frozen=True)
        part.__doc__ = " "
        parts.append((f"section_{name}", Annotated[part, _title(name)], field(default_factory=part)))
    whole = make_dataclass(cls.__name__, parts, frozen=True)
    whole.__doc__ = cls.__doc__
    setattr(whole, SECTIONED, True)
    return whole


def _title(name: str) -> Any:
    from tyro.conf import arg

    return arg(name=name)


def field_docs(cls: type) -> dict[str, str]:
    """Return the string below each field of a dataclass and of its bases.

    Example:
        >>> from vitrail.training.config import TrainConfig
        >>> field_docs(TrainConfig)["min_lr"], field_docs(TrainConfig)["mixup"]
        ('Final learning rate.', 'Alpha of mixup; 0 is off.')
    """
    found: dict[str, str] = {}
    for base in cls.__mro__:
        try:
            body = ast.parse(inspect.cleandoc(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError):  # made at run time
            continue
        assert isinstance(body, ast.ClassDef)
        for own, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(own, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found.setdefault(ast.unparse(own.target), " ".join(str(below.value.value).split()))
    return found


def metavar(kind: object) -> str:
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
