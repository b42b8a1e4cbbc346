"""Argument parsing: `epochs=3`, `--epochs 3` and aliases from other libraries, into a verb's dataclass.

tyro does the parsing. This file first rewrites the arguments to their canonical spelling, so that the error for an
unknown flag names the nearest one.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from vitrail.cli.flags import Arity, Flag, flags_of
from vitrail.cli.help_format import SECTIONED, as_shown, in_sections
from vitrail.cli.usage_errors import plainer
from vitrail.errors import VitrailError, unknown
from vitrail.tasks.options import SECTIONS
from vitrail.training.aliases import ALIASES

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_SETTING = re.compile(r"([A-Za-z][\w.-]*)=(.*)", re.DOTALL)


def parse(verb: str, cls: Any, words: list[str]) -> Any:
    """Build the dataclass `cls` of `verb` from its arguments.

    If the verb has a method `defaults`, fields that are not given come from `cls.defaults(words)`. If it has a static
    method `is_value`, words of the form `key=value` for which that is true are values of its positional field.

    Raises:
        VitrailError: for a flag that does not exist, a value that does not fit, or something missing.
    """
    every = f"`vitrail {verb} --help` lists every flag."
    try:
        words = canonical(flags_of(cls), words, getattr(cls, "is_value", lambda word: False))
    except VitrailError as error:
        raise VitrailError(f"{error}\n{every}") from error
    default = cls.defaults(words) if hasattr(cls, "defaults") else None
    said = io.StringIO()
    with redirect_stderr(said), suppress(SystemExit):
        return _tyro(verb, cls, words, default)
    raise VitrailError(f"{plainer(said.getvalue())}\n{every}")


def asks_for_help(words: list[str]) -> bool:
    """Return whether `--help` or `-h` is given (before `--`).

    Example:
        >>> asks_for_help(["model", "--help"]), asks_for_help(["--", "--help"])
        (True, False)
    """
    before_end = words[: words.index("--")] if "--" in words else words
    return "--help" in before_end or "-h" in before_end


def show_help(verb: str, cls: type, examples: str) -> int:
    """Print the description of the verb, its flags with their defaults, and examples."""
    # tyro colours terminal output and ignores NO_COLOR, so then it writes to a buffer instead.
    page = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding or "utf-8")
    with redirect_stdout(page) if os.environ.get("NO_COLOR") else nullcontext(), suppress(SystemExit):
        sections = getattr(cls, "SECTIONS", None)
        _tyro(verb, in_sections(cls, SECTIONS) if sections else as_shown(cls), ["--help"])
    page.seek(0)
    print(page.read(), end="")
    print("\nexamples:\n" + indent(dedent(examples).strip(), "  "))
    return 0


def _tyro(verb: str, cls: Any, words: list[str], default: Any = None) -> Any:
    import tyro

    start = {} if default is None else {"default": default}
    names: tuple[Any, ...] = (tyro.conf.PositionalMetavarFromFieldName,)
    if hasattr(cls, SECTIONED):
        names += (tyro.conf.OmitArgPrefixes,)  # sections of the help are no part of a flag's name
    return tyro.cli(cls, prog=f"vitrail {verb}", args=words, config=names, **start)


def canonical(flags: list[Flag], words: list[str], is_value: Callable[[str], bool] = lambda word: False) -> list[str]:
    """Rewrite arguments to tyro's spelling: positional arguments in order, then the flags.

    Args:
        flags: flags of the verb.
        words: arguments.
        is_value: whether `key=value`, with a key that is no flag, is a positional value.

    Example:
        >>> flags = [Flag("data", positional=True), Flag("epochs"), Flag("ema", Arity.SWITCH)]
        >>> canonical(flags, ["epochs=3", "ema=false", "data=digits"])
        ['digits', '--epochs', '3', '--no-ema']

    Raises:
        VitrailError: for a flag that is not in `flags`, with the nearest ones.
    """
    end = words.index("--") if "--" in words else len(words)
    alone: list[str] = []
    options: list[str] = []
    named: dict[str, list[str]] = {}
    for flag, group in _groups(flags, words[:end], is_value):
        if flag is None:
            alone += group
        elif flag.positional:
            named.setdefault(flag.name, []).extend(group)
        else:
            options += group
    return [*_in_place([flag for flag in flags if flag.positional], named, alone), *options, *words[end:]]


def _groups(
    flags: list[Flag], words: list[str], is_value: Callable[[str], bool]
) -> Iterator[tuple[Flag | None, list[str]]]:
    """Yield each flag with its values in canonical spelling; a positional value without a name is paired with None."""
    named = {flag.name: flag for flag in flags}
    spellings = {spelling: flag for flag in flags for spelling in flag.spellings}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, value = _split(word, named, is_value)
        if key is None:
            yield None, [word]
            continue
        spelling = _resolve(key, named, spellings)
        flag = spellings.get(spelling) or named[spelling.lstrip("-")]
        if flag.arity is Arity.SWITCH:
            if value is None and rest and rest[0].lower() in ("true", "false"):
                value = rest.pop(0)
            yield flag, [_switch(spelling, flag, value)]
            continue
        taken = [value] if value is not None else _values(flag, rest)
        if flag.positional:
            yield flag, taken or _nothing(flag)
        else:
            yield flag, [spelling, *taken]


def _in_place(places: list[Flag], named: dict[str, list[str]], alone: list[str]) -> list[str]:
    """Order positional values: those given by name at their position, the others in order."""
    rest, ordered, empty = list(alone), [], None
    for flag in places:
        values = named.get(flag.name)
        if values is None:
            count = len(rest) if flag.arity is Arity.MANY else 1
            values, rest = rest[:count], rest[count:]
        elif flag.arity is Arity.ONE and len(values) > 1:
            raise VitrailError(f"{flag.name} is given {len(values)} times: {', '.join(values)}. Give it once.")
        if values and empty:
            raise VitrailError(f"{empty} is missing: beside {flag.name}={values[0]}, give {empty}=VALUE too.")
        if not values:
            empty = empty or flag.name
        ordered += values
    return ordered + rest


def _split(word: str, named: dict[str, Flag], is_value: Callable[[str], bool]) -> tuple[str | None, str | None]:
    """Split `--key=value`, `--key`, `-k` and `key=value`; a plain value has no key."""
    if word.startswith("--"):
        key, equals, value = word.partition("=")
        return key, value if equals else None
    if re.fullmatch(r"-[A-Za-z]", word):
        return word, None
    setting = _SETTING.fullmatch(word)
    if setting and (_dashed(setting[1]) in named or not (Path(word).exists() or is_value(word))):
        return f"--{setting[1]}", setting[2]
    return None, None


def _resolve(key: str, named: dict[str, Flag], spellings: dict[str, Flag]) -> str:
    spelling = key if key in spellings else _dashed(key)
    plain = spelling.lstrip("-")
    if spelling in spellings or plain in named:
        return spelling
    known = ALIASES.get(plain)
    if known in named:
        print(f"note: {key} is --{known} here", file=sys.stderr)
        return f"--{known}"
    others = {alias: f"--{name}" for alias, name in ALIASES.items() if name in named}
    raise unknown("flag", key, [f"--{name}" for name in named], also=others)


def _values(flag: Flag, rest: list[str]) -> list[str]:
    # Words that follow a flag are its values, even those that look like `key=value`.
    count = len(rest) if flag.arity is Arity.MANY else min(1, len(rest))
    stop = next((i for i, word in enumerate(rest[:count]) if word.startswith("--")), count)
    taken, rest[:] = rest[:stop], rest[stop:]
    return taken


def _switch(spelling: str, flag: Flag, value: str | None) -> str:
    if value is None:
        return spelling
    if value.lower() not in _YES + _NO:
        raise VitrailError(f"{spelling} is on or off; got '{value}'. Write {spelling} or --no-{flag.name}.")
    wanted = (value.lower() in _YES) != spelling.startswith("--no-")
    return f"--{flag.name}" if wanted else f"--no-{flag.name}"


def _nothing(flag: Flag) -> list[str]:
    raise VitrailError(f"{flag.name} needs a value: write it alone, or {flag.name}=VALUE.")


def _dashed(name: str) -> str:
    return name.replace("_", "-")
