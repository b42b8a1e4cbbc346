"""Open a data set of clouds: `open_points`."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitrail.data.holdout import hold_out
from vitrail.data.image_io import printable
from vitrail.data.index import SPLIT_NAMES, SPLITS, DataProblem, Split, problem_notes
from vitrail.data.points.cloud import PointFileError
from vitrail.data.points.point_set import AnalyticShape, CloudFile, CloudSource, PointCloudSet, VoxelRow
from vitrail.data.points.reading import EXTENSIONS
from vitrail.data.points.shapes import SHAPES
from vitrail.data.points.voxels import VoxelRows
from vitrail.errors import DataError, VitrailError

KINDS = """shapes, shapes:200        analytic shapes, 60 (200) of each of six classes; no files are needed
FOLDER                    class/*.off, train/class/*.off or class/train/*.off; also PLY, NPY, NPZ, XYZ, CSV, LAS
FOLDER of class.npy.gz    one file a class, each row an occupancy grid"""
"""What `open_points` understands, for help texts."""

_VOXELS = ".npy.gz"
_SHAPES_EACH = 60


class CloudRecord(NamedTuple):
    """A cloud: its id, the name of its class, and its source."""

    id: str
    label: str
    source: CloudSource


@dataclass
class PointSplits:
    """A data set of clouds by split, and its problems."""

    name: str
    classes: tuple[str, ...]
    sets: dict[Split, PointCloudSet]
    problems: list[DataProblem] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Split, PointCloudSet]]:
        for split in SPLITS:
            if split in self.sets:
                yield split, self.sets[split]

    @property
    def skipped(self) -> list[DataProblem]:
        """Files that cannot be read; under `bad="skip"` of a task they are in no split."""
        return self.problems

    def notes(self) -> list[str]:
        """Return a sentence about what was left out."""
        return problem_notes(self.problems, "file")

    def require(self, split: Split) -> PointCloudSet:
        """Return a split; the error names the existing ones."""
        if split not in self.sets:
            there = ", ".join(name for name, _ in self) or "none"
            raise DataError(f"{self.name} has no clouds for {split}; its splits: {there}. Add a folder called {split}.")
        return self.sets[split]


def open_points(spec: str, val_share: float = 0.1, bad: str = "fail") -> PointSplits:
    """Open clouds with classes. If there is no val split, a share of each class of train is held out by hashes of ids.

    Args:
        spec: see `KINDS`.
        val_share: share held out for val if there is no val split.
        bad: policy for unusable files. `fail` and `skip` list those that are found without reading clouds; `list`
            reads every file, and raises nothing.

    Raises:
        VitrailError: no such data.
        DataError: no class folders with clouds, or only one class.

    Example:
        >>> data = open_points("shapes:10")
        >>> [(split, len(clouds)) for split, clouds in data], data.classes[:2]
        ([('train', 54), ('val', 6)], ('box', 'cone'))
    """
    kind, _, count = spec.partition(":")
    problems: list[DataProblem] = []
    if kind == "shapes":
        each = _count(count)
        records = {"train": [_shape(name, i) for name in SHAPES for i in range(each)]}
        found, name = _sets(spec, records), spec
    else:
        root = Path(spec).expanduser()
        if not root.is_dir():
            raise VitrailError(f"There is no folder of clouds at {printable(root)}. Data of points is one of:\n{KINDS}")
        name = printable(root.name or str(root))
        found = _sets(name, _folder(root, problems))
    classes = next((clouds.classes for clouds in found.values()), ())
    if len(classes) < 2 and not problems:
        problems.append(
            DataProblem(name, f"needs clouds of two classes, found {', '.join(classes) or 'none'}", "classes")
        )
    data = PointSplits(name, classes, found, problems)
    if bad == "list":
        data.problems += [fault for _, clouds in data for fault in clouds.faults()]
    elif problems:
        lines = [f"  {problem}" for problem in problems[:3]]
        raise DataError("\n".join([f"{name} cannot be used ({len(problems)} problems):", *lines]))
    if "train" in found and "val" not in found and val_share:
        try:
            found["train"], found["val"] = hold_out(found["train"], val_share, "val")  # pyright: ignore
        except VitrailError as error:
            if bad != "list":
                raise
            data.problems.append(DataProblem(name, str(error).replace("\n", " "), "classes"))
    return data


def _count(text: str) -> int:
    if not text:
        return _SHAPES_EACH
    if not text.isdecimal() or int(text) < 2:
        raise VitrailError(f"shapes:{text} needs a number of shapes for each class, at least 2, such as shapes:200.")
    return int(text)


def _shape(name: str, number: int) -> CloudRecord:
    return CloudRecord(f"{name}/{number:05}", name, AnalyticShape(name, number))


def _folder(root: Path, problems: list[DataProblem]) -> dict[str, list[CloudRecord]]:
    records: dict[str, list[CloudRecord]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") for part in parts) or path.is_dir():
            continue
        key = printable("/".join(parts))
        split = next((SPLIT_NAMES[part.lower()] for part in parts[:-1] if part.lower() in SPLIT_NAMES), "train")
        if path.name.endswith(_VOXELS):
            records[split] += _voxels(path, key, problems)
        elif path.suffix.lower() in EXTENSIONS:
            folders = [part for part in parts[:-1] if part.lower() not in SPLIT_NAMES]
            if folders:
                records[split].append(CloudRecord(key, printable(folders[-1]), CloudFile(path)))
    return records


def _voxels(path: Path, key: str, problems: list[DataProblem]) -> list[CloudRecord]:
    label = printable(path.name.removesuffix(_VOXELS))
    try:
        rows = VoxelRows(path)
    except PointFileError as error:
        problems.append(DataProblem(key, error.reason, error.kind))
        return []
    return [CloudRecord(f"{key}#{row}", label, VoxelRow(rows, row)) for row in rows.rows.tolist()]


def _sets(name: str, records: dict[str, list[CloudRecord]]) -> dict[Split, PointCloudSet]:
    names = {record.label for record in records.get("train") or [r for each in records.values() for r in each]}
    classes = tuple(sorted(names))
    numbers = {label: number for number, label in enumerate(classes)}
    found: dict[Split, PointCloudSet] = {}
    for split in SPLITS:
        known = [record for record in records.get(split, []) if record.label in numbers]
        if known:
            labels = np.array([numbers[record.label] for record in known])
            ids, sources = [record.id for record in known], [record.source for record in known]
            found[split] = PointCloudSet(f"{name} {split}", classes, ids, labels, sources)
    return found
