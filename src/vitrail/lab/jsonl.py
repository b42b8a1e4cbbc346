"""Results on disk: a JSON Lines file that a killed job leaves usable, and continues."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vitrail.atomic_io import full_disk
from vitrail.errors import DataError, VitrailError
from vitrail.tasks.results import Predictor, Result


def job_of(model: Any, predictor: Predictor) -> str:
    """Return a short name for what decides the predictions: weights, preparation, options."""
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
    """Where a line lies in the file, in bytes."""

    start: int
    length: int


class ResultFile:
    """One line per input: an object with `path`, `job`, `precision` and the answer, or the `error`.

    What stands there whole is kept when the job starts again; half a line and failed pictures are done anew. In the end
    the lines are in the order of the pictures, so a killed and resumed job leaves the file that an undisturbed one
    would have left. Only places are held in memory, not answers.

    Args:
        path: the file.
        job: what decides the answers, see `job_of`.

    Attributes:
        done: names of the inputs that had their answer when the file was opened.
        precision: what the answers are computed in; None until it is set, or found in the file.

    Raises:
        VitrailError: the file holds answers of another job.
        DataError: the file is something else.
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
        """Write a result; from here on a kill does not lose it."""
        line = to_line({"job": self.job, "precision": self.precision, **result.to_dict()})
        with full_disk(self.path, needed=len(line)):
            self._places[result.path] = _Place(self._file.tell(), len(line))
            self._file.write(line)
            self._file.flush()

    def finish(self, order: Iterable[str]) -> None:
        """Close the file with its lines in the order of the inputs; lines of other inputs stay above them."""
        with full_disk(self.path):
            os.fsync(self._file.fileno())
        self.close()
        wanted = dict.fromkeys(order)
        names = [name for name in self._places if name not in wanted] + [
            name for name in wanted if name in self._places
        ]
        if names != sorted(self._places, key=lambda name: self._places[name].start):
            self._rewrite(names)

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _scan(self) -> dict[str, _Place]:
        """Find the whole lines with an answer."""
        places: dict[str, _Place] = {}
        if not self.path.exists():
            return places
        start = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):  # else the process died in the middle of it
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
        """Replace the file by one with these lines in this order, in one step."""
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
