"""Where predictions go: a table, lines, JSON or CSV, on the terminal or in a file."""

import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Protocol

from vitrail.atomic_io import refuse_unwritable, write_file
from vitrail.cli.table import print_table
from vitrail.data.image_io import shown
from vitrail.errors import VitrailError
from vitrail.lab.jsonl import ResultFile, to_line
from vitrail.tasks.classification import Classification

SUFFIXES = (".jsonl", ".json", ".csv")


class Output(Protocol):
    """Takes the results of a job one by one; `precision` is what they are computed in, once it is known."""

    done: frozenset[str]
    precision: str | None

    def add(self, result: Classification) -> None:
        """Take a result."""
        ...

    def finish(self, order: Iterable[str]) -> None:
        """The job is over; `order` are the names of its images."""
        ...

    def close(self) -> None:
        """The job ended early."""
        ...


class StdoutWriter:
    """Prints results as they come: readable lines, or JSON Lines."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self, as_json: bool):
        self.as_json = as_json

    def add(self, result: Classification) -> None:
        """Print a line."""
        print(to_line(result.to_dict()).decode().rstrip("\n") if self.as_json else shown(str(result)), flush=True)

    def finish(self, order: Iterable[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TableWriter:
    """Prints a table in the end: an image a row, or for one image a class a row."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self) -> None:
        self.results: list[Classification] = []

    def add(self, result: Classification) -> None:
        """Keep the result for the table."""
        self.results.append(result)

    def finish(self, order: Iterable[str]) -> None:
        """Print the table."""
        good = [result for result in self.results if result.error is None]
        if len(self.results) == 1 and good:
            rows = [[label, f"{p:.1%}", "█" * round(20 * p)] for label, p in good[0].top(len(good[0].labels))]
            print_table(["class", "probability", ""], rows, right=["probability"])
        elif good:
            rows = [[shown(r.path), r.label, f"{r.probability:.1%}", _others(r)] for r in good]
            print_table(["picture", "class", "probability", "next"], rows, right=["probability"])

    def close(self) -> None:
        """Do nothing."""


class CsvLines:
    """Writes CSV as results come: path, error, then label and probability of each class that was kept."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self, stream: IO[str], top: int):
        self._writer = csv.writer(stream, lineterminator="\n")
        classes = [f"{name}_{i}" for i in range(1, top + 1) for name in ("label", "probability")]
        self._width = len(classes)
        self._writer.writerow(["path", "error", *classes])

    def add(self, result: Classification) -> None:
        """Write a row."""
        kept = zip(result.labels, result.probabilities, strict=True)
        cells = [cell for label, p in kept for cell in (label, f"{p:.6f}")]
        self._writer.writerow([shown(result.path), result.error or "", *cells, *[""] * (self._width - len(cells))])

    def finish(self, order: Iterable[str]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class FileWriter:
    """Writes a JSON or CSV file in the end, whole or not at all."""

    done: frozenset[str] = frozenset()
    precision: str | None = None

    def __init__(self, path: Path, top: int):
        self.path, self._text, self._dicts = path, io.StringIO(), []
        self._csv = CsvLines(self._text, top) if path.suffix.lower() == ".csv" else None

    def add(self, result: Classification) -> None:
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


def refuse_output(out: Path | None) -> None:
    """Refuse a file that could not be written, or whose ending does not say what to write.

    Raises:
        VitrailError: it is such a file.
    """
    if out is None:
        return
    if out.suffix.lower() not in SUFFIXES:
        raise VitrailError(f"--out {out} does not say what to write. Let it end in {', '.join(SUFFIXES)}.")
    refuse_unwritable(out)


def open_output(out: Path | None, job: str, pictures: int, top: int, as_json: bool, as_csv: bool) -> Output:
    """Choose where the results of a job go; `refuse_output` has looked at `out` before.

    Raises:
        VitrailError: the file holds answers of another job.
    """
    if out is None:
        if as_csv:
            return CsvLines(sys.stdout, top)
        return TableWriter() if pictures <= 200 and not as_json else StdoutWriter(as_json)
    return ResultFile(out, job) if out.suffix.lower() == ".jsonl" else FileWriter(out, top)


def _others(result: Classification) -> str:
    return ", ".join(f"{label} {p:.1%}" for label, p in result.top(3)[1:])
