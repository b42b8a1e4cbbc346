"""Images that are there twice: equal to the pixel, or alike to the eye.

Likeness is the distance of two perceptual hashes (64 bits, imagehash's `phash`) in bits. Comparing all with all would
be quadratic, so the hashes are cut into `distance + 1` bands: two hashes that differ in at most `distance` bits are
equal in one band at least (the pigeonhole principle), and only those that share a band are compared.
"""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec

import numpy as np
from PIL import Image

NEAR_DISTANCE = 4
"""Bits by which the hashes of two images that are alike may differ."""

SMALLEST_SIDE = 16
"""Images with a shorter side have too few pixels for a perceptual hash."""

_BITS = 64


def can_hash() -> bool:
    """Tell whether imagehash is installed (extra `dedup`).

    Example:
        >>> isinstance(can_hash(), bool)
        True
    """
    return find_spec("imagehash") is not None


def perceptual_hash(image: Image.Image) -> int | None:
    """Return 64 bits that stay nearly the same when an image is scaled or compressed; None for one without content."""
    import imagehash

    grey = image.convert("L")
    low, high = grey.getextrema()
    if min(image.size) < SMALLEST_SIDE or float(high) - float(low) < 8:  # type: ignore[arg-type]
        return None
    return int.from_bytes(np.packbits(imagehash.phash(grey).hash.flatten()).tobytes(), "big")


def equal_groups(values: Sequence[object]) -> list[list[int]]:
    """Return the places of values that occur more than once, None aside.

    Example:
        >>> equal_groups(["a", "b", "a", None, None])
        [[0, 2]]
    """
    places: dict[object, list[int]] = {}
    for place, value in enumerate(values):
        if value is not None:
            places.setdefault(value, []).append(place)
    return [group for group in places.values() if len(group) > 1]


def near_pairs(hashes: np.ndarray, distance: int = NEAR_DISTANCE) -> np.ndarray:
    """Return all pairs of different hashes that differ in at most `distance` bits, `(pairs, 2)`, sorted.

    Args:
        hashes: 64-bit words, each once.
        distance: greatest number of bits.

    Example:
        >>> near_pairs(np.array([0b1111, 0b1110, 1 << 60], dtype=np.uint64), distance=2).tolist()
        [[0, 1]]
    """
    edges = np.linspace(0, _BITS, distance + 2).astype(int)
    found = [np.empty((0, 2), dtype=np.int64)]
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        found.append(_pairs_in_band(hashes, band, distance))
    return np.unique(np.concatenate(found), axis=0)


def _pairs_in_band(hashes: np.ndarray, band: np.ndarray, distance: int) -> np.ndarray:
    """Compare hashes that are equal in a band: sorted by it, they are neighbours 1, 2, 3, ... places apart."""
    order = np.argsort(band, kind="stable")
    sorted_band, sorted_hashes = band[order], hashes[order]
    left, gap, found = np.arange(len(hashes) - 1), 1, []
    while len(left):
        left = left[sorted_band[left] == sorted_band[left + gap]]
        near = left[np.bitwise_count(sorted_hashes[left] ^ sorted_hashes[left + gap]) <= distance]
        found.append(np.sort(np.stack([order[near], order[near + gap]], axis=1), axis=1))
        gap += 1
        left = left[left + gap < len(hashes)]
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def linked(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Join pairs that share a member to groups; return the groups of two and more.

    Example:
        >>> linked(5, [(0, 1), (1, 4)])
        [[0, 1, 4]]
    """
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in pairs:
        one, other = root(one), root(other)
        parent[max(one, other)] = min(one, other)
    return equal_groups([root(place) for place in range(count)])
