"""Tables of numbers: XYZ, CSV, PTS. One point a line, with or without a line of names."""

import re

import numpy as np

from vitrail.data.points.cloud import Cloud, Fault, check_size

_NAMES = ("x", "y", "z")
_PARTS = ("part", "label", "segment")


def read_table(content: bytes) -> Cloud:
    """Read numbers between spaces, commas, semicolons or tabs; `#` and `//` begin comments.

    Without names the first three columns are x, y and z. With names the columns of these names are taken, and a column
    `part` (or `label`, `segment`) if there is one.

    Raises:
        Fault: the content is no table of numbers.

    Example:
        >>> read_table(b"0 0 0\\n1 0 0\\n# a comment\\n0 1 0\\n").points.shape
        (3, 3)
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Fault("neither a known format nor text", "format") from None
    lines = [line for raw in text.splitlines() if (line := re.split(r"#|//", raw, maxsplit=1)[0].strip())]
    if not lines:
        raise Fault("the file has no points", "empty")
    names = _split(lines[0].lower())
    if any(_number(word) is None for word in names):
        lines = lines[1:]
        missing = [name for name in _NAMES if name not in names]
        if missing:
            raise Fault(
                f"the first line names no column {', '.join(missing)}; it has {', '.join(names)[:80]}", "format"
            )
    elif len(names) == 1:  # PTS: the number of points comes first
        lines, names = lines[1:], ["x", "y", "z"]
    else:
        if len(names) < len(_NAMES):
            raise Fault(f"a line has {len(names)} numbers; three are needed", "format")
        names = [*_NAMES, *("" for _ in names[3:])]
    check_size(len(lines))
    part = next((names.index(name) for name in _PARTS if name in names), None)
    columns = [names.index(name) for name in _NAMES] + ([] if part is None else [part])
    rows = _rows(lines, columns)
    return Cloud(rows[:, :3], None, None if part is None else rows[:, 3].astype(np.int64))


def _rows(lines: list[str], columns: list[int]) -> np.ndarray:
    found = np.empty((len(lines), len(columns)))
    for number, line in enumerate(lines):
        words = _split(line)
        try:
            found[number] = [float(words[column]) for column in columns]
        except (ValueError, IndexError):
            raise Fault(f"line {number + 1} of the points is no point: {line[:40]!r}", "broken") from None
    return found


def _split(line: str) -> list[str]:
    return [word.strip() for word in re.split(r"[,;]", line)] if re.search(r"[,;]", line) else line.split()


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
