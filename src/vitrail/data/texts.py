"""Sets of labelled texts by split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vitrail.data.index import DataProblem, Split, problem_notes
from vitrail.errors import DataError


class TextSet:
    """Texts with labels and stable ids.

    Args:
        name: name of the set in messages, such as `sst2 train`.
        classes: names of the classes; a label is a place in this tuple.
        ids: a stable name of each text: file and line.
        labels: class number of each text.
        texts: the texts.
        skipped: names of the rows of this split that cannot be used, and are none of the texts.

    Example:
        >>> TextSet("films test", ("bad", "good"), ["test.tsv:1"], [1], ["a joy"]).counts()
        {'bad': 0, 'good': 1}
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        ids: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        texts: Sequence[str],
        skipped: Sequence[str] = (),
    ) -> None:
        assert len(ids) == len(labels) == len(texts), (name, len(ids), len(labels), len(texts))
        self.name, self.classes, self.ids, self.texts = name, classes, tuple(ids), tuple(texts)
        self.skipped = tuple(skipped)
        self.labels: Tensor = torch.as_tensor(np.asarray(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def counts(self) -> dict[str, int]:
        """Return the number of texts of each class."""
        counts = np.bincount(self.labels.numpy(), minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def take(self, chosen: Sequence[int] | np.ndarray, name: str | None = None) -> "TextSet":
        """Return some of the texts as a set of its own; what was skipped stays with it."""
        index = np.asarray(chosen, dtype=np.int64)
        ids, texts = ([values[number] for number in index] for values in (self.ids, self.texts))
        return TextSet(name or self.name, self.classes, ids, self.labels.numpy()[index], texts, self.skipped)


@dataclass
class TextSplits:
    """A data set of labelled texts.

    Args:
        name: the data set, for display.
        classes: names of the classes.
        splits: the sets that exist.
        problems: rows that cannot be used.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[Split, TextSet]
    problems: list[DataProblem] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Split, TextSet]]:
        """Iterate over the splits that exist."""
        return iter(self.splits.items())

    @property
    def skipped(self) -> list[DataProblem]:
        """Rows that cannot be used, which are in no split."""
        return self.problems

    def notes(self) -> list[str]:
        """Return a sentence about what was left out."""
        return problem_notes(self.problems, "row")

    def require(self, split: str) -> TextSet:
        """Return a split.

        Raises:
            DataError: it does not exist; the message names the existing ones.
        """
        found = next((part for name, part in self if name == split), None)
        if found is None:
            there = ", ".join(self.splits) or "none"
            raise DataError(
                f"{self.name} has no texts for {split}; its splits: {there}.\n"
                f"Add a file {split}.tsv (or .csv, .jsonl) with a text and a label in each row."
            )
        return found
