"""Faults of images with boxes, found before a training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitrail.data.boxes.dataset import BoxSet, BoxSplits, Orientation
from vitrail.data.index import DataProblem
from vitrail.errors import DataError
from vitrail.tasks.findings import Findings


@dataclass(frozen=True)
class BoxCheck(Findings):
    """Faults of a data set of images with boxes.

    Args:
        bad: unusable images.
        files: their files: names begin again in each folder of a split.
    """

    bad: Sequence[DataProblem] = ()
    files: frozenset[Path] = frozenset()

    def require_good(self) -> None:
        """Raise an error if there is an unusable image.

        Raises:
            DataError: the first five are named.
        """
        if self.bad:
            lines = [f"{each.id}: {each.reason}" for each in self.bad[:4]]
            raise DataError(
                f"{len(self.bad)} images cannot be used:\n" + "\n".join(lines) + "\nLeave them out with --bad skip."
            )

    def without_bad(self, splits: BoxSplits) -> BoxSplits:
        """Return the splits without the unusable images."""
        parts = {
            name: part.take([i for i, each in enumerate(part.records) if each.path not in self.files], part.name)
            for name, part in splits
        }
        return BoxSplits(splits.name, splits.classes, parts, self.bad)


def check_boxes(splits: BoxSplits, read: bool = False) -> BoxCheck:
    """Check annotations against the headers of the images.

    Args:
        splits: the data set.
        read: decode every image too, which takes longer.
    """
    bad, files, warnings = list[DataProblem](), list[Path](), list[str]()
    for _, part in splits:
        for number, record in enumerate(part.records):
            reasons = _problems(part, number, read)
            if reasons:
                bad.append(DataProblem(record.id, "; ".join(reasons), "boxes"))
                files.append(record.path)
    train = splits.parts.get("train")
    for name, part in splits:
        counts = part.counts()
        if empty := [label for label, count in counts.items() if not count]:
            warnings.append(f"{part.name} has no object of {', '.join(empty[:4])}.")
        without = sum(not len(record.boxes) for record in part.records)
        if without:
            warnings.append(
                f"{without} of {len(part)} images of {part.name} have no object; they teach the background."
            )
        if name != "train" and train is not None:
            both = _files(train) & _files(part)
            if both:
                warnings.append(f"{len(both)} images are in train and in {name}, first {min(both).name}.")
    counts = [f"{part.name}: {len(part):,} images, {objects(part)}" for _, part in splits]
    return BoxCheck(bad, warnings, counts, frozenset(files))


def _files(part: BoxSet) -> set[Path]:
    """Return the files of the images."""
    return {record.path.resolve() for record in part.records}


def objects(part: BoxSet) -> str:
    """Return the number of objects of each class as text."""
    return ", ".join(f"{count:,} {name}" for name, count in part.counts().items())


def _problems(part: BoxSet, number: int, read: bool) -> list[str]:
    record = part.records[number]
    found = record.problems(len(part.classes))
    try:
        problem = Orientation.of(record.path).problem(record.size)
        if problem is not None:
            return [*found, problem]
        if read:
            part.image(number)
    except DataError as error:
        return [*found, str(error)]
    if record.size is None and len(record.boxes):
        wide, tall = Orientation.of(record.path).upright
        if (record.boxes[:, [0, 1]] >= np.array([wide, tall])).any():
            found.append("boxes outside the image")
    return found
