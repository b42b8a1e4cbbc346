"""Images with boxes, wherever their annotations came from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vitrail.data.image_io import ImageDecodeError, open_image
from vitrail.data.index import DataProblem, problem_notes
from vitrail.errors import DataError, VitrailError


@dataclass(frozen=True)
class BoxRecord:
    """One image and its objects.

    Coordinates are edges of pixels of the upright image: a box around the first pixel is 0, 0, 1, 1.

    Args:
        path: file of the image.
        id: stable name in the data set.
        size: width and height that the annotations state, or None.
        boxes: `(n, 4)` of float64: left, top, right, bottom.
        labels: `(n,)` class numbers from 0.
        ignore: `(n,)`, objects that are neither to be found nor a fault if they are found (crowds, "difficult").
        outlines: polygons (lists of x, y, x, y, ...) or run lengths of each object, as COCO has them; empty without.
        stated_areas: `(n,)` areas of the objects in square pixels, as COCO has them for outlines; None without.
    """

    path: Path
    id: str
    size: tuple[int, int] | None
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    outlines: tuple[object, ...] = field(default=(), compare=False)
    stated_areas: np.ndarray | None = field(default=None, compare=False)

    @property
    def areas(self) -> np.ndarray:
        """Area of each object: as stated, else that of its box.

        Example:
            >>> boxes = np.array([[0.0, 0.0, 4.0, 3.0]])
            >>> BoxRecord(Path("a.png"), "a", None, boxes, np.zeros(1, int), np.zeros(1, bool)).areas.tolist()
            [12.0]
        """
        return (self.boxes[:, 2:] - self.boxes[:, :2]).prod(1) if self.stated_areas is None else self.stated_areas

    def problems(self, classes: int) -> list[str]:
        """Return faults of the annotations: numbers that are no box, classes out of range, boxes outside the image."""
        found = []
        if not np.isfinite(self.boxes).all():
            return ["a coordinate is not a finite number"]
        width, height = self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1]
        if (bad := (width <= 0) | (height <= 0)).any():
            found.append(f"{int(bad.sum())} boxes without area")
        if (bad := (self.labels < 0) | (self.labels >= classes)).any():
            found.append(f"class {int(self.labels[bad][0])} of {classes}")
        if self.size is not None:
            wide, tall = self.size
            outside = (self.boxes[:, 0] >= wide) | (self.boxes[:, 1] >= tall) | (self.boxes[:, 2] <= 0)
            if (outside | (self.boxes[:, 3] <= 0)).any():
                found.append(f"{int((outside | (self.boxes[:, 3] <= 0)).sum())} boxes outside the image")
        return found


class Orientation(NamedTuple):
    """Width and height of an image file as stored, and upright as its EXIF tag states."""

    stored: tuple[int, int]
    upright: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> "Orientation":
        """Read them from the header of a file.

        Raises:
            DataError: it cannot be read as an image.
        """
        try:
            with Image.open(path) as image:
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                wide, tall = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} cannot be read as an image: {error}") from error
        return cls((wide, tall), (tall, wide) if turned else (wide, tall))

    def problem(self, size: tuple[int, int] | None) -> str | None:
        """Return why annotations of an image of this size do not fit it, or None if they do."""
        if size is None or size == self.upright:
            return None
        if size == self.stored:
            return (
                f"its boxes are for the stored {size[0]} x {size[1]}, but its EXIF tag turns it to"
                f" {self.upright[0]} x {self.upright[1]}; rotate the file for good, or annotate it upright"
            )
        return f"annotated as {size[0]} x {size[1]}, but it is {self.upright[0]} x {self.upright[1]}"


class BoxSet:
    """Images with boxes of one split.

    Args:
        name: name in messages, such as `bccd train`.
        classes: names of the classes; a label is a place in this tuple.
        records: the images.

    Example:
        >>> record = BoxRecord(Path("a.png"), "a", None, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
        >>> empty = BoxSet("toy", ("cell",), [record])
        >>> len(empty), empty.ids, empty.counts()
        (1, ['a'], {'cell': 0})
    """

    def __init__(self, name: str, classes: Sequence[str], records: Sequence[BoxRecord]) -> None:
        self.name, self.classes, self.records = name, tuple(classes), list(records)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def ids(self) -> list[str]:
        """Names of the images."""
        return [record.id for record in self.records]

    def counts(self) -> dict[str, int]:
        """Return the number of objects of each class, those to be ignored left out."""
        labels = [record.labels[~record.ignore] for record in self.records]
        found = np.bincount(np.concatenate([*labels, np.zeros(0, np.int64)]), minlength=len(self.classes))
        return dict(zip(self.classes, found.tolist(), strict=False))

    def image(self, number: int, mode: str = "RGB") -> Image.Image:
        """Return an image, upright.

        Raises:
            ImageDecodeError: it cannot be read, or its annotations are for an image of another size or orientation.
        """
        record = self.records[number]
        image = open_image(record.path, mode, name=record.id)
        if record.size is not None and image.size != record.size:
            problem = Orientation.of(record.path).problem(record.size)
            raise ImageDecodeError(record.id, problem or "its size is not the annotated one", "size")
        return image

    def take(self, chosen: Sequence[int], name: str) -> "BoxSet":
        """Return some of the images under another name."""
        return BoxSet(name, self.classes, [self.records[i] for i in chosen])


@dataclass(frozen=True)
class BoxSplits:
    """A data set by split.

    Args:
        name: name of the data set.
        classes: names of the classes.
        parts: the splits that exist, by name.
        skipped: images that were left out.
    """

    name: str
    classes: tuple[str, ...]
    parts: dict[str, BoxSet]
    skipped: Sequence[DataProblem] = ()

    def __iter__(self) -> Iterator[tuple[str, BoxSet]]:
        return iter(self.parts.items())

    def notes(self) -> list[str]:
        """Return a sentence about what was left out."""
        return problem_notes(self.skipped, "image")

    def require(self, split: str) -> BoxSet:
        """Return a split.

        Raises:
            DataError: it does not exist.
        """
        if split not in self.parts:
            raise DataError(f"{self.name} has no split '{split}'; it has {', '.join(self.parts)}.")
        return self.parts[split]


def unique_classes(names: Sequence[str], source: str) -> tuple[str, ...]:
    """Return class names, of which none may be there twice.

    Example:
        >>> unique_classes(["cell", "plate"], "data.yaml")
        ('cell', 'plate')
    """
    if not names:
        raise DataError(f"{source} has no classes.")
    if twice := {name for name in names if list(names).count(name) > 1}:
        raise VitrailError(f"{source} has a class twice: {', '.join(sorted(twice))}.")
    return tuple(names)
