"""Cells of a study in JSON Lines: one line a cell, flushed when it is finished, so that a killed run goes on."""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from vitrail.atomic_io import full_disk
from vitrail.errors import DataError

FILE = "cells.jsonl"


def key_of(parts: Mapping[str, Any]) -> str:
    """Return a short hash of everything that determines a cell.

    Example:
        >>> key_of({"seed": 0, "depth": 2}) == key_of({"depth": 2, "seed": 0})
        True
    """
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class CellFile:
    """The finished cells in a folder.

    An incomplete last line, left by a kill, is cut off before the next cell is written.

    Args:
        folder: output folder; it must exist.

    Raises:
        DataError: a complete line is not JSON.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self.cells: dict[str, dict[str, Any]] = {}
        self._length = 0
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                self.cells[row["key"]] = row
            except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}, line {number} is not a cell of a study: {error}.\n"
                    "Remove the line (its cell is measured again), or choose another --out."
                ) from error
            self._length += len(line)

    def add(self, row: dict[str, Any]) -> None:
        """Append a cell with its `key` and wait until it is on disk."""
        line = json.dumps(row).encode() + b"\n"
        with full_disk(self.path, len(line)), self.path.open("ab") as file:
            file.truncate(self._length)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._length += len(line)
        self.cells[row["key"]] = row
