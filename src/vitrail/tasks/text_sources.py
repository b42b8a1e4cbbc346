"""Inputs of models of text: given texts, files with a text per line, standard input."""

import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.data.image_io import printable
from vitrail.data.text_lines import numbered_lines, read_stream, read_text
from vitrail.errors import DataError, VitrailError

STANDARD_INPUT = "-"
_LONGEST_NAME = 60


class TextLine(NamedTuple):
    """A text to predict: its name in results, and itself."""

    name: str
    text: str


def named_sources(inputs: Iterable[str], texts: Iterable[str] = ()) -> list[TextLine | Path | str]:
    """Return the words of a command line as sources: `inputs` name files, `texts` are texts.

    Without any, standard input is read unless it is a terminal.

    Example:
        >>> named_sources(["a.txt"])[0].name
        'a.txt'
    """
    found: list[Any] = [each if each == STANDARD_INPUT else Path(each) for each in inputs]
    found += [TextLine(text_name(text), text) for text in texts]
    if not found and not sys.stdin.isatty():
        found = [STANDARD_INPUT]
    return found


def find_lines(source: object) -> list[TextLine]:
    """List the texts of a source; a file or standard input (`-`) holds one in each line.

    Args:
        source: a text, a path object of a file, `-`, a `TextLine`, or any of these in an iterable.

    Raises:
        VitrailError: there is none, or no such file.
        DataError: a file is not UTF-8.

    Example:
        >>> [line.text for line in find_lines(["a joy", "a bore"])]
        ['a joy', 'a bore']
    """
    lines = list(_walk(source))
    if not lines:
        raise VitrailError(
            'No text was given. Give --text "...", a file with a text per line, or - for standard input.'
        )
    return [TextLine(name, line.text) for name, line in zip(_unique(line.name for line in lines), lines, strict=True)]


def checked_text(line: TextLine) -> str:
    """Return the text of a line.

    Raises:
        DataError: it is empty.

    Example:
        >>> checked_text(TextLine("1", "a joy"))
        'a joy'
    """
    if not line.text.strip():
        raise DataError("the text is empty")
    return line.text


def text_name(text: str) -> str:
    """Return a short printable name of a text: itself, or its beginning and a hash.

    Example:
        >>> text_name("a joy"), len(text_name("joy " * 100)) < 90
        ('a joy', True)
    """
    shown = printable(text.encode("utf-8", "replace"))
    if len(shown) <= _LONGEST_NAME:
        return shown or "(empty text)"
    return f"{shown[:_LONGEST_NAME]}... {blake2b(text.encode('utf-8', 'replace'), digest_size=4).hexdigest()}"


def _walk(source: Any) -> Iterator[TextLine]:
    if isinstance(source, TextLine):
        yield source
    elif isinstance(source, str) and source == STANDARD_INPUT:
        yield from _named("stdin", read_stream(sys.stdin.buffer, "standard input"))
    elif isinstance(source, str):
        yield TextLine(text_name(source), source)
    elif isinstance(source, PathLike):
        path = Path(source)
        if not path.exists():
            raise VitrailError(
                f"There is no file {printable(path)}. A text itself is given by --text: --text {printable(path)!r}"
            )
        yield from _named(printable(path), numbered_lines(read_text(path)))
    elif isinstance(source, Iterable) and not isinstance(source, bytes | bytearray):
        for each in source:
            yield from _walk(each)
    else:
        raise VitrailError(f"A {type(source).__name__} is not a text. Give strings, or path objects of text files.")


def _named(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[TextLine]:
    return (TextLine(f"{name}:{number}", line) for number, line in lines)


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Number the repetitions of a name, so that each input has its own."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name} ({counts[name]})"
