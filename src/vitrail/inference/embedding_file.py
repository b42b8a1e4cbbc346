"""Files of vectors, .npz or .parquet: written in shards while a job runs, so that an interrupted one continues."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.atomic_io import check_writable, make_folder, write_file
from vitrail.data.image_io import printable
from vitrail.errors import DataError, VitrailError
from vitrail.inference.embed import Embedded, Embeddings

SUFFIXES = (".npz", ".parquet")
_SHARD = 4096


class EmbeddingFile:
    """The vectors of a job.

    Each `shard` vectors become a file of a hidden folder in the folder of `path`; `finish` joins them, in the order of
    the inputs, and removes the folder. A killed job loses at most one shard.

    Args:
        path: the file, ending in .npz or .parquet.
        job: hash of the job, see `vitrail.inference.jsonl.job_of`.
        shard: vectors in a shard.

    Attributes:
        done: names of the inputs whose vectors are there.

    Raises:
        VitrailError: the vectors that are there are of another job.
    """

    def __init__(self, path: Path, job: str, shard: int = _SHARD):
        self.path, self.job, self.shard = path, job, shard
        self.parts = path.with_name(f".{path.name}.parts")
        self._found: dict[str, np.ndarray] = {}
        self._fresh: list[Embedded] = []
        self._failed: Embedded | None = None
        for place in [path, *sorted(self.parts.glob("*.npz"))]:
            if place.exists():
                self._take(place)
        self.done = frozenset(self._found)

    def add(self, result: Embedded) -> None:
        """Take a vector; a full shard is written."""
        if result.vector is None:
            self._failed = self._failed or result
            return
        self._found[result.name] = result.vector
        self._fresh.append(result)
        if len(self._fresh) >= self.shard:
            self.flush()

    def flush(self) -> None:
        """Write the vectors that came since the last shard."""
        if not self._fresh:
            return
        make_folder(self.parts)
        names, rows = [one.name for one in self._fresh], np.stack([one.vector for one in self._fresh])  # pyright: ignore
        number = len(list(self.parts.glob("*.npz")))
        write_file(self.parts / f"{number:06d}.npz", _npz(Embeddings(tuple(names), rows), self.job))
        self._fresh = []

    def finish(self, order: Iterable[str]) -> Embeddings:
        """Write the file, in the order of the inputs, and remove the shards."""
        kept = [name for name in dict.fromkeys(order) if name in self._found]
        if not kept:
            first = f" The first is {self._failed.name}: {self._failed.error}." if self._failed else ""
            raise DataError(f"Not one input could be read, so there are no vectors.{first}")
        result = Embeddings(tuple(kept), np.stack([self._found[name] for name in kept]))
        write_file(self.path, (_parquet if self.path.suffix == ".parquet" else _npz)(result, self.job))
        shutil.rmtree(self.parts, ignore_errors=True)
        return result

    def _take(self, place: Path) -> None:
        found, job = _read(place)
        if job != self.job:
            raise VitrailError(
                f"{place} holds vectors of another job ({job or 'unknown'}, this one is {self.job}):\n"
                "other weights, or other options. Choose another --out, or remove it to begin anew."
            )
        self._found.update(zip(found.names, found.vectors, strict=True))


def check_embedding_file(path: Path) -> None:
    """Refuse a file that could not be written, before any work.

    Raises:
        VitrailError: its ending is unknown, a package is missing, or it cannot be written.

    Example:
        >>> check_embedding_file(Path("vectors.txt"))
        Traceback (most recent call last):
        vitrail.errors.VitrailError: --out vectors.txt does not name a format. Let it end in .npz or .parquet.
    """
    if path.suffix not in SUFFIXES:
        raise VitrailError(f"--out {path} does not name a format. Let it end in {' or '.join(SUFFIXES)}.")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise VitrailError("Parquet needs pyarrow, which is missing: pip install pyarrow, or use .npz.")
    check_writable(path)


def read_embeddings(path: str | Path) -> Embeddings:
    """Read the names and vectors of a file of `vitrail embed`.

    Raises:
        DataError: it is no such file.
    """
    return _read(Path(path))[0]


def _npz(values: Embeddings, job: str) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(values.names, dtype=str), vectors=values.vectors, job=np.array(job))
    return buffer.getvalue()


def _parquet(values: Embeddings, job: str) -> bytes:
    import pyarrow
    from pyarrow import parquet

    flat = pyarrow.array(values.vectors.reshape(-1))
    rows = pyarrow.FixedSizeListArray.from_arrays(flat, values.vectors.shape[1])
    table = pyarrow.table({"name": [printable(name) for name in values.names], "vector": rows}).replace_schema_metadata(
        {"vitrail": job}
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def _read(path: Path) -> tuple[Embeddings, str]:
    """Return the vectors of a file and the hash of their job."""
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no file of vectors of `vitrail embed`: {str(error)[:200]}.") from error


def _read_npz(path: Path) -> tuple[Embeddings, str]:
    with np.load(path) as stored:
        names: Any = stored["names"]
        return Embeddings(tuple(names.tolist()), stored["vectors"]), str(stored["job"])


def _read_parquet(path: Path) -> tuple[Embeddings, str]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    rows = table["vector"].combine_chunks()
    vectors = rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    job = (table.schema.metadata or {}).get(b"vitrail", b"").decode()
    return Embeddings(tuple(table["name"].to_pylist()), vectors), job
