"""Class numbers in files, and the classes that a model learns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.masks import VOID_NAMES, MaskSplits
from vitrail.errors import DataError, VitrailError

IGNORE = -1
"""Class index of pixels that never count: neither in a loss nor in a metric."""

USUAL_VOID = 255
"""Number of unlabelled pixels in most data sets; it never counts."""


@dataclass(frozen=True)
class LabelMap:
    """Numbers of the classes and of pixels that never count.

    Args:
        names: class names.
        ids: number of each class in mask files.
        ignore: numbers that never count.

    Example:
        >>> labels = LabelMap(("sky", "road"), (0, 2), (1, 255))
        >>> labels.encode(np.array([[0, 1, 2, 255]])).tolist(), labels.decode(np.array([[0, 1]])).tolist()
        ([[0, -1, 1, -1]], [[0, 2]])
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    ignore: tuple[int, ...] = (USUAL_VOID,)

    def encode(self, mask: np.ndarray, name: str = "the mask") -> np.ndarray:
        """Return class indices `(Y, X)` of int16, `IGNORE` for void.

        Raises:
            ImageDecodeError: a number is neither a class nor void.
        """
        largest = int(max(mask.max(initial=0), *self.ids, *self.ignore, 0))
        table = np.full(largest + 1, IGNORE - 1, dtype=np.int16)
        table[list(self.ids)] = np.arange(len(self.ids))
        table[list(self.ignore)] = IGNORE
        if mask.min(initial=0) < 0:
            raise ImageDecodeError(name, f"class number {mask.min()} is negative", "class number")
        encoded = table[mask]
        if (encoded < IGNORE).any():
            wrong = np.unique(mask[encoded < IGNORE])
            reason = (
                f"class number {_few(wrong)} of no class; the classes have {_few(self.ids)}, void {_few(self.ignore)}"
            )
            raise ImageDecodeError(name, reason, "class number")
        return encoded

    def decode(self, classes: np.ndarray) -> np.ndarray:
        """Return the numbers of class indices, as in mask files."""
        numbers = np.asarray(self.ids)
        return numbers[classes].astype(np.uint8 if numbers.max(initial=0) < 256 else np.int32)


def label_map(data: MaskSplits, ignore: Iterable[int] = ()) -> LabelMap:
    """Return the classes of a data set: from its file of names, else from the numbers in the training masks.

    Args:
        data: the data set.
        ignore: numbers that never count, beside 255 and the lines `void` of the file of names.

    Raises:
        DataError: the numbers have gaps, so they may be no class numbers; or there is one class only.
    """
    void = {USUAL_VOID, *ignore}
    if data.names is not None:
        void |= {i for i, name in enumerate(data.names) if name.lower() in VOID_NAMES}
        named = {i: name for i, name in enumerate(data.names) if i not in void}
    else:
        named = {i: str(i) for i in found_numbers(data, void)}
    if len(named) < 2:
        raise DataError(f"{data.name} has {len(named)} class ({_few([*named])}); segmentation needs two.")
    return LabelMap(tuple(named.values()), tuple(named), tuple(sorted(void)))


def found_numbers(data: MaskSplits, void: set[int]) -> list[int]:
    """Return the class numbers in the training masks, in order.

    Raises:
        DataError: they are not 0, 1, 2, ... but for numbers that never count.
    """
    train = data.require("train")
    found = sorted({int(n) for i in range(len(train)) for n in np.unique(train.mask(i))} - void)
    if found and not (found[0] >= 0 and set(range(found[-1] + 1)) - void - set(found) == set()):
        raise DataError(
            f"The masks of {data.name} hold the numbers {_few(found)}, with gaps. Name the classes in a file, one a\n"
            "line in the order of the numbers (give it as FOLDER@NAMES.txt), so that none is taken for another."
        )
    return found


def from_metadata(metadata: Mapping[str, Any]) -> LabelMap:
    """Read the classes of a model folder.

    Example:
        >>> from_metadata({"labels": ["road", "sky"]}).names
        ('road', 'sky')
    """
    names = metadata.get("labels")
    if not names:
        raise VitrailError("The model has no class names. Give it some: model.labels = [...]")
    return LabelMap(
        tuple(names), tuple(metadata.get("ids") or range(len(names))), tuple(metadata.get("ignore") or (USUAL_VOID,))
    )


def _few(numbers: Sequence[int] | np.ndarray) -> str:
    shown = ", ".join(str(int(n)) for n in list(numbers)[:8])
    return shown + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
