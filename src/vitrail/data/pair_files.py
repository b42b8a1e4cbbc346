"""Readers of parallel text: one file a language (`train.en`, `train.de.gz`), TSV, and JSON lines."""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vitrail.data.image_io import printable
from vitrail.data.pairs import UNNAMED, ParallelSplits, ParallelText, hold_out_lines
from vitrail.errors import DataError, VitrailError

KINDS = """FOLDER         a file a language: train.en train.de val.en val.de test.en test.de, perhaps .gz, at any depth
FILE.tsv       a pair a line, source and target with a tab between; a first line such as en<TAB>de names them
FILE.jsonl     objects {"en": "...", "de": "..."}, or {"translation": {...}} as on the Hugging Face hub
A folder may hold train.tsv val.tsv test.tsv or train.jsonl val.jsonl test.jsonl in place of files a language."""
"""What `open_pairs` understands, for help texts."""

_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,8})*")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
_TABLES = (".tsv", ".jsonl")


def open_pairs(spec: str | Path, val_share: float = 0.1, bad: str = "fail") -> ParallelSplits:
    """Open a parallel text of any kind, in all its languages.

    Args:
        spec: a folder or a file; see `KINDS`. A file alone is the training split.
        val_share: share of the training lines held out for val if there is no such split; 0 for none.
        bad: treatment of pairs with an empty side: `fail` or `skip`.

    Raises:
        VitrailError: there is no such data.
        DataError: a file cannot be read; the message names file and line.
    """
    path = Path(spec).expanduser()
    if not path.exists():
        raise VitrailError(f"There is no data at {printable(path)}. Parallel text is one of:\n{KINDS}")
    name = path.name.partition(".")[0] or path.resolve().name
    found = _folder(path, bad) if path.is_dir() else {"train": _table(path, f"{name} train", bad)}
    splits = ParallelSplits(name, found.pop("train", None), found.pop("val", None))
    splits.tests = found
    splits.test = next(iter(found.values()), None)
    if splits.train is not None and splits.val is None and val_share:
        splits.train, splits.val = hold_out_lines(splits.train, val_share, "val")
    return splits


def _folder(path: Path, bad: str) -> dict[str, ParallelText]:
    """Read the files of a folder, by split; test sets keep the names of their files."""
    stems: dict[str, dict[str, Path]] = {}
    for file in sorted(each for each in path.rglob("*") if each.is_file() and not each.name.startswith(".")):
        stem, ending = _parts(file)
        if ending:
            other = stems.setdefault(stem, {}).setdefault(ending, file)
            if other != file:
                raise DataError(f"{path} has two files of {stem} in {ending}: {other} and {file}. Name one folder.")
    stems = {stem: files for stem, files in stems.items() if len(files) > 1 or _is_table(next(iter(files)))}
    if not stems:
        raise DataError(f"{path} holds no parallel text. Needed is one of:\n{KINDS}")
    found: dict[str, ParallelText] = {}
    for stem, files in stems.items():
        split = _SPLITS.get(re.split(r"[._-]", stem)[0].lower(), stem)
        if split in found:
            raise DataError(f"{path} has more than one file for {split}: {stem}, and {found[split].name}.")
        title = f"{path.name or path.resolve().name} {split}"
        table = next((file for ending, file in files.items() if _is_table(ending)), None)
        found[split] = _table(table, title, bad) if table else _languages(files, title, bad)
    return found


def _is_table(ending: str) -> bool:
    return f".{ending}" in _TABLES


def _parts(file: Path) -> tuple[str, str]:
    """Return the name before the language and the language, or nothing if a file is no text."""
    stem, _, ending = file.name.removesuffix(".gz").rpartition(".")
    known = _is_table(ending) or _LANGUAGE.fullmatch(ending)
    return (stem, ending) if stem and known and ending not in ("md", "txt", "py", "sh", "csv") else ("", "")


def _languages(files: dict[str, Path], title: str, bad: str) -> ParallelText:
    """Return the text of one file a language; each is read when it is asked for."""
    lines = {language: list(read_lines(file)) for language, file in sorted(files.items())}
    count = max(map(len, lines.values()))
    stem = title.rpartition(" ")[2]
    return ParallelText(title, [f"{stem}:{number}" for number in range(1, count + 1)], lines, bad)


def _table(file: Path, title: str, bad: str) -> ParallelText:
    """Return the text of a table."""
    ending = file.name.removesuffix(".gz").rpartition(".")[2]
    readers: dict[str, Callable[[Path], tuple[Sequence[str], list[Sequence[str]]]]] = {"tsv": _tsv, "jsonl": _jsonl}
    if ending not in readers:
        raise VitrailError(f"{printable(file)} is no parallel text. Give one of:\n{KINDS}")
    names, rows = readers[ending](file)
    if not rows:
        raise DataError(f"{file} has no lines.")
    columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}
    first = 2 if ending == "tsv" and tuple(names) != UNNAMED else 1
    return ParallelText(title, [f"{file.name}:{number}" for number in range(first, len(rows) + first)], columns, bad)


def _tsv(file: Path) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows: list[Sequence[str]] = [line.split("\t") for line in read_lines(file)]
    header = rows[0] if rows and all(_LANGUAGE.fullmatch(cell) for cell in rows[0]) else None
    width = len(header) if header else 2
    for number, row in enumerate(rows, start=1):
        if len(row) < width:
            raise DataError(f"{file}, line {number}, has {len(row)} columns; {width} are needed, with tabs between.")
        if header and any(cell.strip() for cell in row[width:]):
            raise DataError(f"{file}, line {number}, has {len(row)} columns; its first line names {width}.")
    if header and len(set(header)) < width:
        raise DataError(f"{file} names a language twice: {', '.join(header)}.")
    return (header, rows[1:]) if header else (UNNAMED, rows)


def _jsonl(file: Path) -> tuple[Sequence[str], list[Sequence[str]]]:
    names: list[str] = []
    rows: list[Sequence[str]] = []
    for number, line in enumerate(read_lines(file), start=1):
        values = _object(file, number, line)
        names = names or [name for name, value in values.items() if isinstance(value, str)]
        row = [values.get(name) for name in names]
        if len(row) < 2 or not all(isinstance(value, str) for value in row):
            need = f"texts for {', '.join(names)}" if len(names) > 1 else "texts in two languages"
            raise DataError(f"{file}, line {number}, needs {need}; it has {', '.join(map(str, values)) or 'nothing'}.")
        rows.append([str(value) for value in row])
    return names, rows


def _object(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise DataError(f"{file}, line {number}, is not JSON: {error}.") from error
    values = values.get("translation", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise DataError(f"{file}, line {number}, is no JSON object.")
    return values


def read_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, plain or .gz; only newlines end a line, as in `wc -l`.

    `str.splitlines` also cuts at U+2028 and form feeds, which would shift one language against the other.

    Raises:
        DataError: the file is not UTF-8, or damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".en") as file:
        ...     _ = file.write("a dog\\na cat\\n"), file.flush()
        ...     list(read_lines(Path(file.name)))
        ['a dog', 'a cat']
    """
    number = 0
    try:
        with gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(file)}, line {number}, is not UTF-8: {error.reason}.") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{printable(file)} cannot be read: {error}") from error
