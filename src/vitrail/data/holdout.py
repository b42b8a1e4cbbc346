"""Stratified hold-out as a pure function of the ids."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, Self, TypeVar

import numpy as np
from torch import Tensor

from vitrail.errors import VitrailError


class Samples(Protocol):
    """A set of samples, as far as it can be divided."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Name of each sample."""
        ...

    def __len__(self) -> int: ...


class LabelledSamples(Samples, Protocol):
    """A set of samples with a class each."""

    @property
    def labels(self) -> Tensor:
        """Classes `(n,)`."""
        ...

    def take(self, chosen: np.ndarray, name: str | None = None) -> Self:
        """Return some of the samples as a set."""
        ...


Labelled = TypeVar("Labelled", bound=LabelledSamples)


def hold_out(images: Labelled, share: float, purpose: str) -> tuple[Labelled, Labelled]:
    """Hold out a share of each class; return the remaining and the held-out set.

    In each class the ids are sorted by their hash and the first ones are held out, independent of seeds and file order.
    A class of two or more images loses at least one and keeps at least one.

    Args:
        images: the set to divide: a `ImageSet` or a `TextSet`.
        share: share of each class to hold out, in (0, 1).
        purpose: name of the new split; it salts the hash, so that two hold-outs differ.

    Raises:
        VitrailError: the share is impossible, or no class has two images.
    """
    if not 0 < share < 1:
        raise VitrailError(f"A share of {share} cannot be kept aside for {purpose}; use more than 0 and less than 1.")
    labels = images.labels.numpy()
    order = sorted(range(len(images)), key=lambda number: id_hash(purpose, images.ids[number]))
    left = np.zeros(len(images), dtype=bool)
    for label in np.unique(labels):
        members = [number for number in order if labels[number] == label]
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        left[members[:count]] = True
    if not left.any():
        raise VitrailError(
            f"{images.name} has no class with two images, so none can be kept aside for {purpose}.\n"
            "Add images, or give the data set a split of its own."
        )
    stem = images.name.rsplit(" ", 1)[0]
    return images.take(np.flatnonzero(~left)), images.take(np.flatnonzero(left), f"{stem} {purpose}")


def hold_out_names(names: Sequence[str], share: float, purpose: str) -> tuple[list[int], list[int]]:
    """Hold out a share of samples without classes; return the numbers of the remaining and the held-out samples.

    Example:
        >>> kept, held = hold_out_names(["a", "b", "c", "d"], 0.25, "val")
        >>> len(kept), len(held)
        (3, 1)
    """
    order = sorted(range(len(names)), key=lambda number: id_hash(purpose, names[number]))
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    return sorted(order[count:]), sorted(order[:count])


def id_hash(purpose: str, name: str) -> bytes:
    """Return the hash of an id; `purpose` salts it.

    Example:
        >>> id_hash("val", "cats/1.jpg") == id_hash("val", "cats/1.jpg") != id_hash("test", "cats/1.jpg")
        True
    """
    return blake2b(f"{purpose}\0{name}".encode("utf-8", "backslashreplace"), digest_size=16).digest()
