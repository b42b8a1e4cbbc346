"""Logs of a run: one JSON object per line, one CSV row per epoch, TensorBoard events.

Only complete lines up to a saved state count: a state records the length of each file, and a resumed run truncates the
files to it, so that every step is logged once.
"""

import csv
import io
import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from vitrail.atomic_io import flush_folder


class Log(Protocol):
    """Log of steps and epochs."""

    def step(self, row: Mapping[str, Any]) -> None:
        """Write one update."""
        ...

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write one validation."""
        ...

    def flush(self) -> dict[str, int]:
        """Flush to disk and return the length of each file."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


class NoLog:
    """Null object for `Log`, for all ranks but 0 and for trial updates."""

    def step(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def flush(self) -> dict[str, int]:
        """Return no lengths."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class RunLog:
    """`metrics.jsonl`, `results.csv` and TensorBoard events in a run folder.

    Args:
        folder: the run folder.
        lengths: lengths to truncate the files to, from the resumed state; empty for a new run.
        step: updates done so far; later TensorBoard events are purged.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int], step: int = 0):
        self._lines = _CutFile(folder / "metrics.jsonl", lengths.get("metrics.jsonl", 0))
        self._table = _CutFile(folder / "results.csv", lengths.get("results.csv", 0))
        flush_folder(folder)  # directory entries too: a saved state depends on both files
        self._board = _board(folder, step)

    def step(self, row: Mapping[str, Any]) -> None:
        """Write one update."""
        self._lines.write(_line({"kind": "step", **row}))
        if self._board:
            for name in ("loss", "lr", "grad_norm"):
                self._board.add_scalar(f"train/{name}", row[name], row["step"])

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write one validation."""
        self._lines.write(_line({"kind": "epoch", **row}))
        if self._table.length == 0:
            self._table.write(_row(row.keys()))
        self._table.write(_row(row.values()))
        self._table.flush(durable=False)
        self._lines.flush(durable=False)
        if self._board:
            for name, value in row.items():
                if name not in ("step", "epoch", "lr", "seconds", "best") and value is not None:
                    self._board.add_scalar(f"epoch/{name}", value, row["step"])

    def flush(self) -> dict[str, int]:
        """Flush to disk and return the length of each file."""
        for file in (self._lines, self._table):
            file.flush(durable=True)
        if self._board:
            self._board.flush()
        return {file.path.name: file.length for file in (self._lines, self._table)}

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._lines.close()
        self._table.close()
        if self._board:
            self._board.close()


def tensorboard_missing() -> str | None:
    """Return the reason why no TensorBoard events are written, or None."""
    if find_spec("tensorboard") is None:
        return "No TensorBoard events: the package is missing (pip install tensorboard)."
    return None


def read_log(path: Path, kind: str) -> list[dict[str, Any]]:
    """Read the rows of one kind (`step` or `epoch`) from a `metrics.jsonl`; a partial last line is left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = (Path(place) / "metrics.jsonl").write_text('{"kind": "step", "loss": 2.0}\\n{"kind": "ep')
        ...     read_log(Path(place) / "metrics.jsonl", "step")
        [{'kind': 'step', 'loss': 2.0}]
    """
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [row for row in rows if row["kind"] == kind]


class _CutFile:
    """A file of lines, truncated to a known length."""

    def __init__(self, path: Path, length: int):
        self.path = path
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        self.length = min(length, path.stat().st_size)
        self._file.truncate(self.length)

    def write(self, text: str) -> None:
        """Append a line."""
        content = text.encode()
        self._file.write(content)
        self.length += len(content)

    def flush(self, durable: bool) -> None:
        """Flush the lines to the system, and with `durable` to disk."""
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    plain = {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in row.items()}
    return json.dumps(plain) + "\n"


def _row(values: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _board(folder: Path, step: int) -> Any:
    if tensorboard_missing():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
