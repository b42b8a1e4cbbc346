"""Faults of images with boxes, found before a training."""

from collections.abc import Sequence

import numpy as np

from vitrail.data.boxes.dataset import BoxSet, BoxSplits, Orientation
from vitrail.data.index import DataProblem
from vitrail.errors import DataError
from vitrail.tasks.findings import Findings


class BoxCheck(Findings):
    """Faults of a data set of images with boxes; `bad` are images, each a `DataProblem`."""

    bad: Sequence[DataProblem]

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
        bad = {each.id for each in self.bad}
        parts = {
            name: part.take([i for i, record in enumerate(part.records) if record.id not in bad], part.name)
            for name, part in splits
        }
        return BoxSplits(splits.name, splits.classes, parts, self.bad)


def check_boxes(splits: BoxSplits, read: bool = False) -> BoxCheck:
    """Check annotations against the headers of the images.

    Args:
        splits: the data set.
        read: decode every image too, which takes longer.
    """
    bad, warnings = [], []
    for _, part in splits:
        for number in range(len(part)):
            reasons = _problems(part, number, read)
            if reasons:
                bad.append(DataProblem(part.records[number].id, "; ".join(reasons), "boxes"))
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
            both = set(train.ids) & set(part.ids)
            if both:
                warnings.append(f"{len(both)} images are in train and in {name}, first {min(both)}.")
    counts = [f"{part.name}: {len(part):,} images, {objects(part)}" for _, part in splits]
    return BoxCheck(bad, warnings, counts)


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
