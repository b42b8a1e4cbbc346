"""Tables of images: CSV or JSON lines with a path, a label and perhaps a split in each row.

Hugging Face's `imagefolder` layout (`metadata.csv` or `metadata.jsonl` in the folder of the images, one for the data
set or one per split) is read the same way.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Any

from vitrail.data.image_io import EXTENSIONS, printable
from vitrail.data.index import SPLIT_NAMES, DataProblem, DatasetIndex, Record, Split
from vitrail.errors import DataError, VitrailError, nearest

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MORE_CELLS = "more cells than columns; a value with the separator in it needs quotation marks"
"""Reason why a row is not used."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None looks for the usual names.

    Args:
        image: path of the image, relative to the table.
        label: name or number of the class.
        split: train, val or test.
        fold: fold of cross-validation; only if it is named.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None
    fold: str | None = None


_USUAL = {
    "image": ("file_name", "path", "image", "filename", "file", "image_path", "filepath", "img"),
    "label": ("label", "class", "target", "category", "class_name", "label_name", "y"),
    "split": ("split", "set", "subset", "fold", "partition"),
}


def list_table(path: Path, columns: Columns) -> DatasetIndex:
    """List the images that a table names."""
    listing = DatasetIndex(printable(path.name))
    _read_into(listing, path, path.parent, columns, "train")
    return listing


def find_metadata(root: Path) -> list[tuple[Path, Split]]:
    """Return the tables of Hugging Face's layout: one for the whole data set, or one in the folder of each split."""
    found: list[tuple[Path, Split]] = _tables_in(root, "train")
    for folder in [] if found else sorted(root.iterdir()):
        if folder.name.lower() in SPLIT_NAMES and folder.is_dir():
            found += _tables_in(folder, SPLIT_NAMES[folder.name.lower()])
    return found


def _tables_in(folder: Path, split: Split) -> list[tuple[Path, Split]]:
    for suffix in SUFFIXES:
        if (folder / f"metadata{suffix}").is_file():
            return [(folder / f"metadata{suffix}", split)]
    return []


def list_metadata(root: Path, tables: list[tuple[Path, Split]], columns: Columns) -> DatasetIndex:
    """List the images named by the metadata tables of their folders."""
    listing = DatasetIndex(printable(root.name or str(root)))
    for table, split in tables:
        _read_into(listing, table, root, columns, split)
    return listing


def _read_into(listing: DatasetIndex, table: Path, root: Path, columns: Columns, split: Split) -> None:
    rows = table_rows(table)
    names = next(rows)[1]
    _check_header(list(names), table)
    body = [(number, row) for number, row in rows if any(map(_text, row.values())) or has_more_cells(row)]
    found = {key: _choose(key, getattr(columns, key), list(names), printable(table.name)) for key in _USUAL}
    fold = columns.fold and _choose("fold", columns.fold, list(names), printable(table.name))
    if fold and found["split"] == fold and columns.split is None:
        found["split"] = None
    if found["split"] and columns.split is None and not _has_splits(body, found["split"]):
        text = f"the column '{found['split']}' names no train, val or test and is not taken for the split"
        listing.warnings.append(f"{text}; --split-column takes another")
        found["split"] = None
    whole = _are_whole_numbers(body, found["label"])
    seen: set[str] = set()
    for number, row in body:
        where = f"{printable(table.name)} line {number}"
        value, label = _text(row.get(found["image"] or "")), _text(row.get(found["label"] or ""))
        part = _text(row.get(found["split"] or "")) if found["split"] else split
        label, value = label.removesuffix(".0") if whole else label, normpath(value) if value else value
        if not value or not label:
            listing.problems.append(DataProblem(where, f"no {'path' if not value else 'label'} in this row", "label"))
        elif has_more_cells(row):
            listing.problems.append(DataProblem(where, MORE_CELLS, "cells"))
        elif part.lower() not in SPLIT_NAMES:
            reason = f"split '{part}' is not one of train, val, test"
            listing.problems.append(DataProblem(where, reason, "split"))
        elif value in seen:
            listing.problems.append(DataProblem(where, f"{printable(value)} was named before", "twice"))
        else:
            seen.add(value)
            place = table.parent / value
            name = (Path(*table.parent.relative_to(root).parts) / value).as_posix()
            number_of_fold = _text(row.get(fold)) if fold else ""
            listing.add(SPLIT_NAMES[part.lower()], Record(printable(name), label, place, number_of_fold))


def _check_header(names: list[str], table: Path) -> None:
    """Refuse a table whose first line is already a row."""
    paths = [name for name in names if name and Path(name.strip()).suffix.lower() in EXTENSIONS]
    if paths:
        raise DataError(
            f"{printable(table.name)} has no column names: its first line holds {printable(paths[0])}.\n"
            "Add a first line with names, such as: path,label"
        )


def _has_splits(rows: list[tuple[int, dict[str, Any]]], column: str) -> bool:
    return any(_text(row.get(column)).lower() in SPLIT_NAMES for _, row in rows)


def _are_whole_numbers(rows: list[tuple[int, dict[str, Any]]], column: str | None) -> bool:
    """Return whether all labels are whole numbers that a program wrote as floats: 0.0, 1.0, 10.0."""
    labels = {_text(row.get(column or "")) for _, row in rows}
    return all(re.fullmatch(r"-?\d+\.0", label) for label in labels if label)


def table_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the column names first, then each row with its line number."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            kind = table.suffix.lower()
            yield from _csv_rows(file, table) if kind in (".csv", ".tsv") else _json_rows(file, table)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{printable(table)} is not UTF-8 text (byte {error.start}); save the table as UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(f"{printable(table)} is not a table that can be read: {error}.") from error


def has_more_cells(row: object) -> bool:
    """Return whether a row of `table_rows` has values beyond the named columns; empty ones do not count.

    Example:
        >>> has_more_cells({"path": "a.jpg", "label": "red", None: [" round"]}), has_more_cells({"path": "a.jpg"})
        (True, False)
    """
    values: Any = row
    return any(cell.strip() for cell in values.get(None) or ())


def _csv_rows(file: Any, table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    first = file.readline()
    file.seek(0)
    comma = "," if "," in first or ";" not in first else ";"  # spreadsheets of many countries write semicolons
    reader = csv.DictReader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else comma, strict=True)
    if not reader.fieldnames:
        raise DataError(f"{printable(table)} is empty; its first line must name the columns, such as path,label.")
    twice = next((name for name in reader.fieldnames if name and reader.fieldnames.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{printable(table)} names the column {printable(twice)} twice; rename or remove one.")
    yield 0, dict.fromkeys(reader.fieldnames)
    for row in reader:
        yield reader.line_num, row


def _json_rows(file: Any, table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    first = True
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{printable(table)} line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f'{printable(table)} line {number} is not an object such as {{"path": ..., "label": ...}}.')
        if first:
            yield 0, row
        first = False
        yield number, row
    if first:
        raise DataError(f"{printable(table)} is empty; each line must be an object with a path and a label.")


def _choose(key: str, wanted: str | None, names: list[str], table: str) -> str | None:
    listed = ", ".join(names[:12])
    if wanted is not None:
        if wanted in names:
            return wanted
        guess = ", ".join(nearest(wanted, names))
        raise VitrailError(
            f"{table} has no column '{wanted}' for the {key}." + (f" Did you mean: {guess}?" if guess else "")
            + f"\nIts columns: {listed}."
        )  # fmt: skip
    lowered = {name.lower().strip(): name for name in names if name}
    for usual in _USUAL[key]:
        if usual in lowered:
            return lowered[usual]
    if key == "split":
        return None
    raise VitrailError(
        f"{table} has no column that is usual for the {key} ({', '.join(_USUAL[key][:5])}, ...).\n"
        f"Its columns: {listed}.\nRename the right one to {_USUAL[key][0]}, or name it where the command has"
        f" --{key}-column (in Python, Columns({key}=...))."
    )


def _text(value: Any) -> str:
    """Return a cell as text; JSON's numbers and booleans count, lists and objects do not name a class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) else ""
