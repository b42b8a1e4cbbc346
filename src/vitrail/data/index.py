"""Index of a data source: images by split, and its problems.

A source never stops at the first problem: it lists everything. `open_dataset` raises on an index with problems unless
`bad="list"`, and `check_dataset` reports them all.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vitrail.data.dataset import Files, ImageSet, Span

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders and column values for the three splits."""


class DataProblem(NamedTuple):
    """An unusable file or row, or a fault of the data set: its id, the reason, and a category for counting."""

    id: str
    reason: str
    kind: str

    @property
    def is_general(self) -> bool:
        """Whether it is a fault of the whole data set, and not of a file, a folder or a row."""
        return self.kind in ("classes", "no images", "none")

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


def left_out(count: int, noun: str) -> str:
    """Return the sentence on what cannot be used, without its end.

    Example:
        >>> left_out(1, "row"), left_out(1200, "image")
        ('1 row cannot be used and is left out', '1,200 images cannot be used and are left out')
    """
    subject = f"{noun} cannot be used and is" if count == 1 else f"{noun}s cannot be used and are"
    return f"{count:,} {subject} left out"


def problem_notes(problems: Sequence[DataProblem], noun: str) -> list[str]:
    """Return the sentence on a data set's unusable files or rows; an empty list if there are none.

    Example:
        >>> problem_notes([DataProblem("a.off", "is empty", "empty")], "file")
        ['1 file cannot be used and is left out, first a.off: is empty.']
    """
    return [f"{left_out(len(problems), noun)}, first {problems[0]}."] if problems else []


class Record(NamedTuple):
    """An image: its id, the name of its class, the location of its bytes, and its fold if a table gives it."""

    id: str
    label: str
    place: Path | Span
    fold: str = ""


@dataclass
class DatasetIndex:
    """Images and problems of a source.

    Args:
        name: the data set, for display.
        entries: images of each split; a data set without splits has everything in `train`.
        problems: unusable files and rows.
        ignored: number of files that are no images, by ending.
        warnings: doubts about the layout.
    """

    name: str
    entries: dict[Split, list[Record]] = field(default_factory=dict)
    problems: list[DataProblem] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def add(self, split: Split, entry: Record) -> None:
        """Add an image to a split."""
        self.entries.setdefault(split, []).append(entry)

    def sets(self, classes: tuple[str, ...] | None = None) -> dict[Split, ImageSet]:
        """Map class names to class indices; unknown labels are added to `problems`.

        Args:
            classes: names of the classes in order. By default those of the training images (of all images if there is
                no training split), sorted; names that are all integers are sorted as integers.
        """
        classes = classes or self._classes()
        numbers = {name: number for number, name in enumerate(classes)}
        if not set(self._names(*self.entries)) & set(numbers):  # labels given as numbers of the classes
            numbers |= {str(number): number for number in range(len(classes))}
        found: dict[Split, ImageSet] = {}
        for split, entries in self.entries.items():
            known = [entry for entry in entries if entry.label in numbers]
            self.problems += [_unknown(entry, classes) for entry in entries if entry.label not in numbers]
            labels = np.array([numbers[entry.label] for entry in known], dtype=np.int64)
            ids, store = [entry.id for entry in known], Files([entry.place for entry in known])
            if known:
                found[split] = ImageSet(f"{self.name} {split}", classes, ids, labels, store)
                if any(entry.fold for entry in known):
                    found[split].folds = np.array([entry.fold for entry in known])
        return found

    def _names(self, *splits: Split) -> list[str]:
        return sorted({entry.label for split in splits for entry in self.entries.get(split, [])})

    def _classes(self) -> tuple[str, ...]:
        names = self._names("train") or self._names(*self.entries)
        return tuple(sorted(names, key=int) if all(_is_integer(name) for name in names) else names)


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and name.isascii()


def _unknown(entry: Record, classes: tuple[str, ...]) -> DataProblem:
    known = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
    return DataProblem(entry.id, f"label '{entry.label}' is not one of the {len(classes)} classes ({known})", "label")
