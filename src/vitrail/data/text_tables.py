"""Open labelled texts: a folder with a table for each split, or one table with the columns text and label."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vitrail.data.holdout import hold_out
from vitrail.data.image_io import printable
from vitrail.data.index import SPLIT_NAMES, SPLITS, DataProblem, Split
from vitrail.data.table import MORE_CELLS
from vitrail.data.text_lines import json_object, numbered_lines, read_text
from vitrail.data.texts import TextSet, TextSplits
from vitrail.errors import DataError, VitrailError

SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson")
COLUMNS = {
    "text": ("text", "sentence", "review", "content", "document", "question"),
    "label": ("label", "class", "sentiment", "target", "category", "y"),
    "split": ("split", "set", "subset", "fold", "partition"),
}
"""Usual names of the columns."""


class TextRecord(NamedTuple):
    """A row: its id, text, label and split."""

    id: str
    text: str
    label: str
    split: Split


class _Fault(NamedTuple):
    """A row that cannot be used, with its split if it states a known one."""

    problem: DataProblem
    split: Split | None


def open_texts(spec: str, val_share: float = 0.1, bad: Literal["fail", "skip", "list"] = "fail") -> TextSplits:
    """Open labelled texts.

    Args:
        spec: a folder with `train.tsv`, `dev.tsv` (or `val`), `test.tsv`, or with .csv or .jsonl files; or one such
            file, whose rows may name their split. A .tsv without column names has a text and a label in each row.
        val_share: share of the training texts held out for val if there is no val split; 0 for no val split.
        bad: `fail` raises on rows that cannot be used and names them, `skip` and `list` leave them in `problems`.

    Raises:
        VitrailError: there is no such data.
        DataError: it cannot be used; the message names the first few faults.
    """
    path, faults = Path(spec).expanduser(), list[_Fault]()
    records = [record for file, split in _files(path) for record in _read(file, split, faults)]
    problems = [fault.problem for fault in faults]
    name = printable(path.name if path.is_dir() else path.stem)
    classes = _classes(records)
    if len(classes) < 2:
        problems.append(DataProblem(name, f"it has {len(classes)} classes; two are needed", "classes"))
    if problems and bad == "fail":
        raise DataError(
            "\n".join([f"{name} cannot be used as it is:", *map(str, problems[:3])])
            + (f"\nand {len(problems) - 3} more" if len(problems) > 3 else "")
            + "\nCorrect the rows, or leave them out: --bad skip"
        )
    splits: dict[Split, TextSet] = {split: _set(name, split, classes, records, faults) for split in SPLITS}
    found = TextSplits(name, classes, {split: texts for split, texts in splits.items() if len(texts)}, problems)
    if "train" in found.splits and "val" not in found.splits and val_share:
        kept, held = hold_out(found.splits["train"], val_share, "val")
        others: dict[Split, TextSet] = {split: texts for split, texts in found if split != "train"}
        found.splits = {"train": kept, "val": held, **others}
    return found


def _files(path: Path) -> list[tuple[Path, Split]]:
    """Return the tables of a data set with the split of each."""
    if path.is_file() and path.suffix in SUFFIXES:
        return [(path, SPLIT_NAMES.get(path.stem.lower(), "train"))]
    if path.is_dir():
        found = {}
        for file in sorted(path.iterdir()):
            split = SPLIT_NAMES.get(file.stem.lower())
            if split is None or file.suffix not in SUFFIXES:
                continue
            if split in found:
                raise DataError(f"{printable(path)} has two files for {split}: {found[split].name}, {file.name}.")
            found[split] = file
        if found:
            return [(file, split) for split, file in found.items()]
    what = "holds none" if path.is_dir() else "is no such file" if path.exists() else "is not there"
    raise VitrailError(
        f"Labelled texts are a folder with train.tsv, dev.tsv and test.tsv (or .csv, .jsonl),\n"
        f"or one such file with the columns text and label; {printable(path)} {what}."
    )


def _read(path: Path, split: Split, faults: list[_Fault]) -> Iterator[TextRecord]:
    name = printable(path.name)
    rows = iter(_rows(path))
    head = next(rows, None)
    columns, first = _header(name, head)
    width = len(head[1]) if head else 0
    for number, row in ([first] if first else []) + list(rows):
        where = f"{name}:{number}"
        values = {key: str(row[place]) for key, place in columns.items() if _has(row, place)}
        part = values.get("split", split).strip().lower()
        missing = [key for key in ("text", "label") if not values.get(key, "").strip()]
        if missing:
            faults.append(_Fault(DataProblem(where, f"no {missing[0]} in this row", "row"), SPLIT_NAMES.get(part)))
        elif isinstance(row, list) and any(cell.strip() for cell in row[width:]):
            faults.append(_Fault(DataProblem(where, MORE_CELLS, "row"), SPLIT_NAMES.get(part)))
        elif part not in SPLIT_NAMES:
            reason = f"split '{part}' is not one of train, val, test"
            faults.append(_Fault(DataProblem(where, reason, "split"), None))
        else:
            yield TextRecord(where, values["text"], values["label"].strip(), SPLIT_NAMES[part])


def _has(row: Any, place: Any) -> bool:
    """Return whether a row has a value in a column."""
    if isinstance(row, dict):
        return row.get(place) is not None
    return place < len(row)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line numbers with the cells of a row, or its object; empty lines are left out."""
    text, name = read_text(path), printable(path.name)
    if path.suffix == ".csv":
        csv.field_size_limit(sys.maxsize)
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise DataError(f"{name}, line {reader.line_num} is no CSV: {error}.") from error
        return
    for number, line in numbered_lines(text):
        if line.strip():  # quotation marks are characters of a text in .tsv files
            yield number, line.split("\t") if path.suffix == ".tsv" else json_object(line, f"{name}:{number}")


def _header(name: str, first: tuple[int, Any] | None) -> tuple[dict[str, Any], tuple[int, Any] | None]:
    """Return the place of each column, and the first row if it is none of names."""
    if first is None:
        raise DataError(f"{name} is empty; each row needs a text and a label.")
    cells = first[1]
    named = list(cells) if isinstance(cells, dict) else [cell.strip().lower() for cell in cells]
    found = {key: next((one for one in usual if one in named), None) for key, usual in COLUMNS.items()}
    places = {key: (one if isinstance(cells, dict) else named.index(one)) for key, one in found.items() if one}
    if isinstance(cells, list) and (twice := next((one for one in found.values() if named.count(one or "") > 1), None)):
        raise DataError(f"{name} names the column {twice} twice; rename or remove one.")
    if "text" in places and "label" in places:
        return places, first if isinstance(cells, dict) else None
    if isinstance(cells, dict) or len(cells) != 2 or places:
        raise DataError(
            f"{name} has the columns {', '.join(named[:6])}; needed: text and label.\n"
            "Name the columns so in the first line, or leave two columns, text and label, without names."
        )
    return {"text": 0, "label": 1}, first


def _classes(records: Sequence[TextRecord]) -> tuple[str, ...]:
    """Return the labels of the training texts, sorted; numbers as numbers."""
    counts = Counter(record.label for record in records if record.split == "train")
    names = sorted(counts or Counter(record.label for record in records))
    whole = all(name.removeprefix("-").isdecimal() and name.isascii() for name in names)
    if len(names) > 100 and len(names) > len(records) // 2:
        raise DataError(
            f"There are {len(names)} different labels in {len(records)} rows, first {names[0][:40]!r}: is the second"
            " column the label?"
        )
    return tuple(sorted(names, key=int) if whole else names)


def _set(
    name: str, split: Split, classes: tuple[str, ...], records: Sequence[TextRecord], faults: Sequence[_Fault]
) -> TextSet:
    own = [record for record in records if record.split == split]
    numbers = {label: number for number, label in enumerate(classes)}
    unknown = next((record for record in own if record.label not in numbers), None)
    if unknown is not None:
        raise DataError(f"{unknown.id}: label '{unknown.label}' does not occur in the training texts.")
    labels = [numbers[record.label] for record in own]
    skipped = [fault.problem.id for fault in faults if fault.split == split]
    return TextSet(f"{name} {split}", classes, [r.id for r in own], labels, [r.text for r in own], skipped)
