"""Lines of text files, read strictly: UTF-8 only, and a line ends at a line feed alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vitrail.data.image_io import printable
from vitrail.errors import DataError, VitrailError


def read_text(path: Path) -> str:
    """Return the text of a file; a byte-order mark is removed, and `\\r\\n` becomes `\\n`.

    Raises:
        VitrailError: there is no such file.
        DataError: it is not UTF-8; the message has the place of the first wrong byte.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("wb") as file:
        ...     _ = file.write(b"\\xef\\xbb\\xbfone\\r\\ntwo"), file.flush()
        ...     read_text(Path(file.name))
        'one\\ntwo'
    """
    try:
        return decode(path.read_bytes(), printable(path))
    except FileNotFoundError as error:
        raise VitrailError(f"There is no file {printable(path)}. Give a text file in UTF-8.") from error
    except IsADirectoryError as error:
        raise VitrailError(f"{printable(path)} is a folder. Give a text file in UTF-8.") from error


def decode(data: bytes, name: str) -> str:
    r"""Return bytes in UTF-8 as text.

    Example:
        >>> decode(b"\xef\xbb\xbfone\r\ntwo", "a.txt")
        'one\ntwo'
    """
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} is not UTF-8 text (line {line}, byte {error.start}). Save it as UTF-8.") from error


def read_class_lines(path: Path) -> list[str]:
    """Return the class names of a file: line n is class n - 1, so only lines after the last name may be empty.

    Raises:
        DataError: a line before the last name is empty, or the file is not UTF-8.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("wb") as file:
        ...     _ = file.write(b"sky\\nroad \\n\\n"), file.flush()
        ...     read_class_lines(Path(file.name))
        ['sky', 'road']
    """
    lines = [line.strip() for _, line in numbered_lines(read_text(path))]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        number = lines.index("")
        raise DataError(
            f"{printable(path)}, line {number + 1} is empty, but it stands for class {number}.\n"
            "Write its name there; or remove the line, if the numbers of the classes go on without it."
        )
    return lines


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text with their numbers from 1; a last line feed ends the last line.

    `str.splitlines` would also cut at form feeds and at U+2028, which are characters of a line.

    Example:
        >>> list(numbered_lines("a\\x0cb\\n\\nc\\n"))
        [(1, 'a\\x0cb'), (2, ''), (3, 'c')]
    """
    lines = text.split("\n")
    return enumerate(lines[:-1] if lines[-1] == "" else lines, start=1)


def read_stream(stream: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    r"""Yield the numbered lines of a stream of bytes.

    Example:
        >>> from io import BytesIO
        >>> list(read_stream(BytesIO(b"one\ntwo\n"), "a.txt"))
        [(1, 'one'), (2, 'two')]
    """
    return numbered_lines(decode(stream.read(), name))


def json_object(line: str, where: str) -> dict[str, object]:
    """Return the object on a line of JSON Lines.

    Raises:
        DataError: the line is no JSON object.

    Example:
        >>> json_object('{"text": "a joy"}', "line 1")
        {'text': 'a joy'}
    """
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}.") from error
    if not isinstance(row, dict):
        raise DataError(f'{where} is not an object such as {{"text": ..., "label": ...}}.')
    return row
