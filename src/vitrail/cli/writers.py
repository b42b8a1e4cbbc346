"""Writers of predictions: a table, lines, JSON or CSV, to the terminal or a file."""

import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Protocol

from vitrail.atomic_io import check_writable, write_file
from vitrail.cli.table import print_table
from vitrail.data.image_io import printable
from vitrail.errors import VitrailError
from vitrail.inference.jsonl import ResultFile, to_line
from vitrail.tasks.results import Predictor, Result

SUFFIXES = (".jsonl", ".json", ".csv")


class Output(Protocol):
    """Sink of the results of a job; `precision` is their compute precision, once it is known."""

    done: frozenset[str]
    precision: str | None

    def add(self, result: Result) -> None:
        """Take a result."""
        ...

    def finish(self, order: Iterable[str]) -> None:
        """The job is over; `order` are the names of its inputs."""
        ...

    def close(self) -> None:
        """Close after an interrupted job."""
        ...


class StdoutWriter:
    """Prints results as they come: readable lines, or JSON Lines."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self, as_json: bool):
        self.as_json = as_json

    def add(self, result: Result) -> None:
        """Print a line."""
        print(to_line(result.to_dict()).decode().rstrip("\n") if self.as_json else printable(str(result)), flush=True)

    def finish(self, order: Iterable[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TableWriter:
    """Prints a table at the end."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.results: list[Result] = []

    def add(self, result: Result) -> None:
        """Keep the result for the table."""
        if result.error is None:
            self.results.append(result)

    def finish(self, order: Iterable[str]) -> None:
        """Print the table."""
        if self.results:
            table = self.predictor.table(self.results)
            print_table(table.columns, [[printable(cell) for cell in row] for row in table.rows], right=table.right)

    def close(self) -> None:
        """Do nothing."""


class CsvLines:
    """Writes CSV as results come: path, error, then the cells of the task."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self, stream: IO[str], predictor: Predictor):
        self._writer, self._width = csv.writer(stream, lineterminator="\n"), len(predictor.csv_columns)
        self._writer.writerow(["path", "error", *predictor.csv_columns])

    def add(self, result: Result) -> None:
        """Write a row."""
        cells = () if result.error is not None else result.cells()
        self._writer.writerow([printable(result.path), result.error or "", *cells, *[""] * (self._width - len(cells))])

    def finish(self, order: Iterable[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class FileWriter:
    """Writes a JSON or CSV file at the end, atomically."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self, path: Path, predictor: Predictor):
        self.path, self._text, self._dicts = path, io.StringIO(), []
        self._csv = CsvLines(self._text, predictor) if path.suffix.lower() == ".csv" else None

    def add(self, result: Result) -> None:
        """Keep the result for the file."""
        if self._csv is not None:
            self._csv.add(result)
        else:
            self._dicts.append(result.to_dict())

    def finish(self, order: Iterable[str]) -> None:
        """Write the file."""
        text = self._text.getvalue() if self._csv is not None else json.dumps(self._dicts, indent=1) + "\n"
        write_file(self.path, text.encode())

    def close(self) -> None:
        """Do nothing."""


def check_output(out: Path | None) -> None:
    """Refuse a file that could not be written, or whose ending does not say what to write.

    Raises:
        VitrailError: it cannot be written, or its ending is unknown.
    """
    if out is None:
        return
    if out.suffix.lower() not in SUFFIXES:
        raise VitrailError(f"--out {out} does not say what to write. Let it end in {', '.join(SUFFIXES)}.")
    check_writable(out)


def kept_note(count: int, out: Path) -> str:
    """Return the end of a sentence about inputs that a resumed job did not compute again.

    Example:
        >>> kept_note(0, Path("w.jsonl"))
        ''
        >>> print("0 predictions" + kept_note(1, Path("w.jsonl")))
        0 predictions, 1 were there already
        Inputs are known by name: to compute changed files again, remove w.jsonl or choose another --out.
    """
    if not count:
        return ""
    return (
        f", {count} were there already\n"
        f"Inputs are known by name: to compute changed files again, remove {out} or choose another --out."
    )


def open_output(out: Path | None, job: str, predictor: Predictor, count: int, as_json: bool, as_csv: bool) -> Output:
    """Choose the output of a job of `count` inputs; `check_output` has checked `out` before.

    Raises:
        VitrailError: the file holds results of another job.
    """
    if out is None:
        if as_csv:
            return CsvLines(sys.stdout, predictor)
        return TableWriter(predictor) if count <= 200 and not as_json else StdoutWriter(as_json)
    return ResultFile(out, job) if out.suffix.lower() == ".jsonl" else FileWriter(out, predictor)
