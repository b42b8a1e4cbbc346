"""Folds of cross-validation: those of a table, or a pure function of the ids, stratified by class."""

from copy import copy
from typing import Any

import numpy as np

from vitrail.data.holdout import Samples, id_hash
from vitrail.errors import DataError, VitrailError


def split_fold(splits: Any, count: int, number: int) -> Any:
    """Return a data set whose val split is one fold of the training samples, and whose train split are the others.

    Splits for val and test that the data set brings are left out: each training sample is validated in one fold.

    Args:
        splits: the data set.
        count: number of folds.
        number: the fold that is val, from 0.

    Raises:
        VitrailError: samples of this kind cannot be divided.
        DataError: there are fewer samples than folds.
    """
    train, made = splits.require("train"), copy(splits)
    whole = isinstance(getattr(made, "splits", None), dict)
    if not hasattr(train, "take") or not (whole or hasattr(made, "train")):
        raise VitrailError(f"The samples of {splits.name} cannot be divided into folds; leave --folds out.")
    if len(train) < count:
        raise DataError(f"{splits.name} has {len(train)} training samples, too few for {count} folds.")
    held = fold_of(train, count) == number
    stem = train.name.rsplit(" ", 1)[0]
    parts = {
        "train": train.take(np.flatnonzero(~held)),
        "val": train.take(np.flatnonzero(held), f"{stem} fold-{number}"),
    }
    if whole:
        made.splits = parts
        return made
    left = [name for name, _ in splits if name != "train"]
    made.train, made.val, made.test = parts["train"], parts["val"], None
    if left:
        made.warnings = [*made.warnings, f"cross-validation divides train; {' and '.join(left)} is not used"]
    return made


def fold_of(samples: Samples, count: int) -> np.ndarray:
    """Return the fold of each sample, `(n,)`: in each class the samples, ordered by hash of their ids, take turns.

    Args:
        samples: a data set with `ids`, and with `labels` if it has classes; its own `folds` are taken as they are.
        count: number of folds.

    Raises:
        DataError: the folds of the data are of another number, or samples without one are among them.
    """
    given = getattr(samples, "folds", None)
    if given is not None:
        return _given_folds(samples, given, count)
    order = sorted(range(len(samples)), key=lambda number: id_hash("folds", samples.ids[number]))
    labels = getattr(samples, "labels", None)
    groups = np.zeros(len(samples), dtype=np.int64) if labels is None or labels.ndim != 1 else labels.numpy()
    folds, turn = np.empty(len(samples), dtype=np.int64), 0
    for group in np.unique(groups):
        for number in order:
            if groups[number] == group:
                folds[number], turn = turn % count, turn + 1
    return folds


def _given_folds(samples: Samples, given: np.ndarray, count: int) -> np.ndarray:
    """Number the folds that a table gives, in the order of their names; whole numbers are ordered as numbers."""
    names = sorted(set(given.tolist()))
    if "" in names:
        first = samples.ids[given.tolist().index("")]
        raise DataError(f"{int((given == '').sum())} training samples of {samples.name} have no fold, first {first}.")
    if len(names) != count:
        listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise DataError(f"The fold column has {len(names)} folds ({listed}), and --folds is {count}.")
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    return np.array([names.index(name) for name in given.tolist()], dtype=np.int64)
