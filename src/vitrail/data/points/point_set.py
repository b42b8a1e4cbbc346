"""A set of clouds with labels, wherever they are kept."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch

from vitrail.data.index import DataProblem
from vitrail.data.points.cloud import Cloud, PointFileError
from vitrail.data.points.reading import read_cloud
from vitrail.data.points.shapes import SHAPES, varied
from vitrail.data.points.voxels import VoxelRows
from vitrail.errors import DataError


class CloudSource(Protocol):
    """One cloud that is read when it is needed."""

    def read(self) -> Cloud:
        """Return the cloud."""
        ...


class CloudFile:
    """A file on a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Cloud:
        """Read the file."""
        return read_cloud(self.path)


class VoxelRow:
    """A row of a file of occupancy grids."""

    def __init__(self, rows: VoxelRows, row: int) -> None:
        self.rows, self.row = rows, row

    def read(self) -> Cloud:
        """Return the centres of its occupied cells."""
        return self.rows.cloud(self.row)


class AnalyticShape:
    """A shape of `SHAPES` with proportions of its number."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number

    def read(self) -> Cloud:
        """Return the mesh."""
        return varied(SHAPES[self.name](), self.number)


class PointCloudSet:
    """Clouds with labels and stable ids.

    Args:
        name: name of the set in messages.
        classes: names of the classes; a label is a place in this tuple.
        ids: a stable name of each cloud.
        labels: class number of each cloud.
        sources: where each cloud is read from.
        skipped: names of clouds of this split that cannot be read, and are none of it.
    """

    budget = 512 * 2**20
    """Bytes of clouds that are kept in memory once they are read."""

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        ids: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        sources: Sequence[CloudSource],
        skipped: Sequence[str] = (),
    ) -> None:
        self.name, self.classes, self.ids, self.sources = name, classes, tuple(ids), list(sources)
        self.skipped = tuple(skipped)
        self.labels = torch.as_tensor(np.asarray(labels, dtype=np.int64))
        self._kept: dict[int, Cloud] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.ids)

    def cloud(self, number: int) -> Cloud:
        """Return a cloud; those of small sets are read once.

        Raises:
            PointFileError: its file cannot be read.
        """
        found = self._kept.get(number)
        if found is None:
            found = self.sources[number].read()
            size = sum(array.nbytes for array in (found.points, found.faces, found.parts) if array is not None)
            if self._bytes + size <= self.budget:
                self._kept[number], self._bytes = found, self._bytes + size
        return found

    def counts(self) -> dict[str, int]:
        """Return the number of clouds of each class."""
        counts = np.bincount(self.labels.numpy(), minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def take(self, chosen: Sequence[int] | np.ndarray, name: str | None = None) -> Self:
        """Return some of the clouds as a set of its own."""
        index = np.asarray(chosen, dtype=np.int64)
        ids, sources = [self.ids[number] for number in index], [self.sources[number] for number in index]
        return type(self)(name or self.name, self.classes, ids, self.labels.numpy()[index], sources, self.skipped)

    def faults(self) -> list[DataProblem]:
        """Read every cloud, and return those that cannot be read."""
        problems = []
        for name, source in zip(self.ids, self.sources, strict=True):
            try:
                source.read()
            except PointFileError as error:
                problems.append(DataProblem(name, error.reason, error.kind))
        return problems

    def without(self, names: Container[str]) -> Self:
        """Return the other clouds as a set of its own, which names those in `skipped`.

        Raises:
            DataError: there are no others.
        """
        if all(name in names for name in self.ids):
            raise DataError(
                f"Not one cloud of {self.name} can be read. See why: vitrail data check FOLDER --task points"
            )
        kept = self.take([number for number, name in enumerate(self.ids) if name not in names])
        kept.skipped = (*self.skipped, *(name for name in self.ids if name in names))
        return kept
