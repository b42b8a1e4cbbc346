"""Flags of a verb, from its dataclass; for error messages and shell completion."""

import dataclasses
import types
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


class Arity(Enum):
    """Number of values of a flag."""

    SWITCH = 0
    ONE = 1
    MANY = 2


@dataclass(frozen=True)
class Flag:
    """One flag of a verb, spelled as the user types it, without the leading `--`.

    Args:
        name: the canonical spelling, with dashes.
        arity: number of values.
        positional: whether the value may be given without the name of the flag.
        choices: the allowed values, if they are known.
        aliases: other spellings that the verb itself declares, with their dashes.
    """

    name: str
    arity: Arity = Arity.ONE
    positional: bool = False
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def spellings(self) -> list[str]:
        """Every spelling on the command line."""
        if self.positional:
            return []
        negated = [f"--no-{self.name}"] if self.arity is Arity.SWITCH else []
        return [f"--{self.name}", *negated, *self.aliases]


def flags_of(verb: type, prefix: str = "") -> list[Flag]:
    """Read the flags of a verb's dataclass; a field that is itself a dataclass gives `--field.name`.

    Example:
        >>> @dataclass
        ... class Verb:
        ...     drop_path: float = 0.1
        ...     resume: bool = False
        >>> [spelling for flag in flags_of(Verb) for spelling in flag.spellings]
        ['--drop-path', '--resume', '--no-resume']
    """
    hints = get_type_hints(verb, include_extras=True)
    flags: list[Flag] = []
    for field in dataclasses.fields(verb):
        kind, marks = _bare(hints[field.name])
        name = prefix + field.name.replace("_", "-")
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            flags += flags_of(kind, prefix=f"{name}.")
        elif field.init:
            flags.append(_flag(name, kind, marks))
    return flags


def _flag(name: str, kind: Any, marks: Collection[Any]) -> Flag:
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    positional = any(str(mark) == "Positional" for mark in marks)
    return Flag(name, _arity(kind), positional, _choices(kind), tuple(aliases))


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        return kind, tuple(marks)
    return hint, ()


def _arity(kind: Any) -> Arity:
    if kind is bool:
        return Arity.SWITCH
    return Arity.MANY if any(_is_collection(part) for part in _parts(kind)) else Arity.ONE


def _is_collection(kind: Any) -> bool:
    outer = get_origin(kind) or kind
    return isinstance(outer, type) and issubclass(outer, Collection) and not issubclass(outer, str | bytes)


def _choices(kind: Any) -> tuple[str, ...]:
    return tuple(str(value) for part in _parts(kind) if get_origin(part) is Literal for value in get_args(part))


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
