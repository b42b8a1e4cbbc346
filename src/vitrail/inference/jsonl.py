"""Result files in JSON Lines, resumable after an interrupted job."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from vitrail.atomic_io import full_disk
from vitrail.errors import DataError, VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.results import Result


class JobSource(Protocol):
    """What computes results, as far as files of results depend on it."""

    def job(self) -> list[object]:
        """Return the options that determine the results, apart from the weights."""
        ...


def job_of(model: Model, predictor: JobSource) -> str:
    """Return a short hash of the inputs of a prediction: weights, preprocessing, options."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(memoryview(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    digest.update(json.dumps(predictor.job()).encode())
    return digest.hexdigest()[:12]


def to_line(values: Mapping[str, Any]) -> bytes:
    r"""Return values as a line of JSON in UTF-8; a file name that is not Unicode keeps its bytes as escapes.

    Example:
        >>> to_line({"path": "été.jpg"}).decode(), to_line({"path": "\udce9.jpg"})
        ('{"path": "été.jpg"}\n', b'{"path": "\\udce9.jpg"}\n')
    """
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(values).encode() + b"\n"


class _Place(NamedTuple):
    """Byte range of a line in the file."""

    start: int
    length: int


class ResultFile:
    """Result file with one line per input: an object with `path`, `job`, `precision` and the result, or the `error`.

    Complete lines are kept when a job resumes; a truncated line and failed inputs are repeated. At the end the lines
    are sorted in the order of the inputs, so a resumed job writes the same file as an uninterrupted one. Only byte
    ranges are kept in memory, not results.

    Args:
        path: the file.
        job: hash of the job, see `job_of`.

    Attributes:
        done: names of the inputs that had a result when the file was opened.
        precision: compute precision of the results; None until it is set, or found in the file.

    Raises:
        VitrailError: the file has results of another job.
        DataError: the file has another format.
    """

    def __init__(self, path: str | os.PathLike[str], job: str):
        self.path, self.job = Path(path), job
        self.precision: str | None = None
        self._places = self._scan()
        self.done = frozenset(self._places)
        if self.path.exists() and sum(place.length for place in self._places.values()) < self.path.stat().st_size:
            self._rewrite(self._places)
        self._file = open(self.path, "ab")  # noqa: SIM115 - closed by finish() or close()

    def add(self, result: Result) -> None:
        """Write a result and flush it, so that a killed process does not lose it."""
        line = to_line({"job": self.job, "precision": self.precision, **result.to_dict()})
        with full_disk(self.path, needed=len(line)):
            self._places[result.path] = _Place(self._file.tell(), len(line))
            self._file.write(line)
            self._file.flush()

    def finish(self, order: Iterable[str]) -> None:
        """Sort the lines in the order of the inputs, after those of other inputs, and close the file."""
        with full_disk(self.path):
            os.fsync(self._file.fileno())
        self.close()
        wanted = dict.fromkeys(order)
        names = [name for name in self._places if name not in wanted] + [
            name for name in wanted if name in self._places
        ]
        if names != sorted(self._places, key=lambda name: self._places[name].start):
            self._rewrite(names)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the values of each line, after `finish`."""
        with open(self.path, "rb") as file:
            yield from map(json.loads, file)

    def close(self) -> None:
        """Close the file without sorting it."""
        self._file.close()

    def _scan(self) -> dict[str, _Place]:
        """Return the byte ranges of the complete lines with a result."""
        places: dict[str, _Place] = {}
        if not self.path.exists():
            return places
        start = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):  # else truncated by a killed process
                    values = self._read(line, number)
                    if "error" not in values:
                        places[values["path"]] = _Place(start, len(line))
                        self.precision = self.precision or values.get("precision")
                start += len(line)
        return places

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not isinstance(values.get("path"), str) or "job" not in values:
            raise DataError(
                f"{self.path}, line {number} is not a result of `vitrail predict`, so nothing is added to that file.\n"
                "Choose another --out."
            )
        if values["job"] != self.job:
            raise VitrailError(
                f"{self.path} holds answers of another job ({values['job']}, this one is {self.job}):\n"
                "other weights, or other options that change predictions.\n"
                "Choose another --out, or remove the file to begin anew."
            )
        return values

    def _rewrite(self, names: Iterable[str]) -> None:
        """Atomically replace the file by one with these lines in this order."""
        new, places, start = self.path.with_name(f".{self.path.name}.new"), {}, 0
        try:
            with full_disk(self.path), open(self.path, "rb") as old, open(new, "wb") as file:
                for name in names:
                    old.seek(self._places[name].start)
                    length = file.write(old.read(self._places[name].length))
                    places[name] = _Place(start, length)
                    start += length
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        finally:
            new.unlink(missing_ok=True)
        self._places = places
