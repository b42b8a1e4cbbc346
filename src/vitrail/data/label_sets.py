"""Images with any number of labels each: tables with several labels in a cell, or a column of 0 and 1 per label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.data.dataset import Files, ImageSet, Store
from vitrail.data.datasets import Splits
from vitrail.data.holdout import hold_out
from vitrail.data.image_io import printable
from vitrail.data.index import SPLIT_NAMES, DataProblem
from vitrail.data.table import MORE_CELLS, SUFFIXES, has_more_cells, table_rows
from vitrail.errors import DataError, VitrailError

_LABELS = ("labels", "label", "tags", "classes", "categories", "attributes")
_IMAGES = ("file_name", "path", "image", "filename", "file", "image_path", "filepath", "img")
_BREAKS = (";", "|", ",")
_YES, _NO = {"1", "1.0", "true"}, {"0", "0.0", "false", ""}


class LabelSet(ImageSet):
    """Images, each with a set of labels.

    Args:
        name: name of the set in messages.
        classes: names of the labels.
        ids: a stable name of each image.
        targets: `(n, K)`, 1 if the image has the label.
        store: location of the images.
        skipped: names of the rows of this split that cannot be used, and are none of the images.
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        ids: Sequence[str],
        targets: Tensor,
        store: Store,
        skipped: Sequence[str] = (),
    ):
        super().__init__(name, classes, ids, np.zeros(len(ids), dtype=np.int64), store)
        self.targets, self.skipped = targets, tuple(skipped)

    def counts(self) -> dict[str, int]:
        """Return the number of images with each label."""
        return dict(zip(self.classes, self.targets.sum(0).long().tolist(), strict=True))

    def digest(self) -> str:
        """Return a hash of ids, labels and file sizes."""
        return f"{super().digest()}-{hash_of(self.targets)}"

    def take(self, chosen: Sequence[int] | np.ndarray, name: str | None = None) -> "LabelSet":
        """Return some of the images as a set of its own; what was skipped stays with it."""
        index = np.asarray(chosen, dtype=np.int64)
        ids, store = [self.ids[number] for number in index], self.store.take(index)
        return LabelSet(name or self.name, self.classes, ids, self.targets[index], store, self.skipped)


def hash_of(targets: Tensor) -> str:
    """Return a short hash of a matrix of 0 and 1.

    Example:
        >>> hash_of(torch.eye(3)) == hash_of(torch.eye(3)) != hash_of(torch.ones(3, 3))
        True
    """
    from hashlib import blake2b

    return blake2b(np.packbits(targets.numpy().astype(bool)).tobytes(), digest_size=8).hexdigest()


def has_label_sets(spec: str) -> bool:
    """Return whether a file is a table of images with several labels.

    Example:
        >>> has_label_sets("no/such/table.csv")
        False
    """
    try:
        open_label_sets(spec, val_share=0.0, bad="skip")
    except VitrailError:
        return False
    return True


def open_label_sets(spec: str, val_share: float = 0.1, bad: str = "fail") -> Splits:
    """Open a table of images with several labels.

    The labels of an image are in one cell (`cat;dog`, with `;`, `|` or `,`, or a list in JSON lines), or in a column
    for each label, which holds 1 or 0. An image may have none. Rows may name their split.

    Args:
        spec: a .csv, .tsv or .jsonl table; paths are relative to it.
        val_share: share of the training images held out for val if there is no val split; 0 for no val split.
        bad: `fail` raises on rows that cannot be used, `skip` leaves them out.

    Raises:
        VitrailError: there is no such table, or it has no column of images.
        DataError: a row cannot be used.
    """
    path = Path(spec).expanduser()
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        raise VitrailError(
            f"Images with several labels are a table: {', '.join(SUFFIXES)}, with the columns path and labels;\n"
            f"{printable(path)} is {'no such file' if path.exists() else 'not there'}."
        )
    rows = table_rows(path)
    names = [name for name in next(rows)[1] if name]
    columns = {name.lower().strip(): name for name in names}
    image = next((columns[name] for name in _IMAGES if name in columns), None)
    if image is None:
        raise VitrailError(f"{printable(path.name)} has no column of images ({', '.join(_IMAGES[:4])}, ...).")
    split = columns.get("split")
    body = [row for _, row in rows]
    sets, classes = _labels(body, names, columns, [image, split], path)
    found, faults = _read(body, sets, image, split, path)
    problems = [problem for _, problem in faults]
    if problems and bad == "fail":
        lines = [f"{printable(path.name)} cannot be used as it is:", *map(str, problems[:3])]
        raise DataError("\n".join([*lines, "Correct the rows, or leave them out: --bad skip"]))
    numbers = {name: number for number, name in enumerate(classes)}
    data = Splits(printable(path.name), classes, skipped=problems)
    for part, entries in found.items():
        targets = torch.zeros(len(entries), len(classes))
        for row, (_, labels, _) in enumerate(entries):
            targets[row, [numbers[label] for label in labels]] = 1.0
        store = Files([place for _, _, place in entries])
        ids, skipped = [one for one, _, _ in entries], [problem.id for own, problem in faults if own == part]
        setattr(data, part, LabelSet(f"{data.name} {part}", classes, ids, targets, store, skipped))
    if data.train is not None and data.val is None and val_share:
        data.train, data.val = hold_out(data.train, val_share, "val")
    return data


def _read(
    body: list[dict[str, Any]], sets: list[list[str]], image: str, split: str | None, path: Path
) -> tuple[dict[str, list[tuple[str, list[str], Path]]], list[tuple[str | None, DataProblem]]]:
    """Return the images of each split with their labels, and the unusable rows with their split, if it is known."""
    found: dict[str, list[tuple[str, list[str], Path]]] = {}
    faults, seen = list[tuple[str | None, DataProblem]](), set[str]()
    for number, (row, labels) in enumerate(zip(body, sets, strict=True), start=2):
        name, part = str(row.get(image) or "").strip(), str((split and row.get(split)) or "train").strip().lower()
        where = f"{printable(path.name)} row {number}"
        if not name or part not in SPLIT_NAMES:
            reason = f"split '{part}' is not one of train, val, test" if name else "no path in this row"
            faults.append((SPLIT_NAMES.get(part), DataProblem(where, reason, "row")))
        elif has_more_cells(row):
            faults.append((SPLIT_NAMES[part], DataProblem(where, MORE_CELLS, "row")))
        elif name in seen:
            faults.append((SPLIT_NAMES[part], DataProblem(where, f"{printable(name)} was named before", "twice")))
        else:
            seen.add(name)
            found.setdefault(SPLIT_NAMES[part], []).append((printable(name), labels, path.parent / name))
    return found, faults


def _labels(
    body: list[dict[str, Any]], names: list[str], columns: dict[str, str], others: list[str | None], path: Path
) -> tuple[list[list[str]], tuple[str, ...]]:
    """Return the labels of each row, and the names of all labels."""
    column = next((columns[name] for name in _LABELS if name in columns), None)
    if column is None:
        classes = tuple(name for name in names if name not in others)
        values = [
            [str(row.get(name) if row.get(name) is not None else "").strip().lower() for name in classes]
            for row in body
        ]
        wrong = [value for row in values for value in row if value not in _YES | _NO]
        if not classes or wrong:
            told = f"the value '{printable(wrong[0])}' in a column of 0 and 1" if wrong else "no columns of labels"
            raise DataError(
                f"{printable(path.name)} has {told}.\n"
                "Give a column labels with names such as cat;dog, or a column of 0 and 1 for each label."
            )
        return [[name for name, value in zip(classes, row, strict=True) if value in _YES] for row in values], classes
    cells = [row.get(column) for row in body]
    mark = next((mark for mark in _BREAKS if any(isinstance(cell, str) and mark in cell for cell in cells)), None)
    sets = [_split(cell, mark) for cell in cells]
    classes = tuple(sorted({label for labels in sets for label in labels}))
    if not classes:
        raise DataError(f"{printable(path.name)}: the column '{column}' has no labels.")
    return sets, classes


def _split(cell: Any, mark: str | None) -> list[str]:
    parts = (
        cell if isinstance(cell, list) else str(cell if cell is not None else "").split(mark) if mark else [cell or ""]
    )
    return list(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
