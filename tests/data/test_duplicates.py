"""Band hashing equals the exhaustive comparison."""

import numpy as np
import pytest
from drawn_images import encoded, smooth_image
from PIL import Image

from vitrail.data.duplicates import NEAR_DISTANCE, equal_groups, linked, near_pairs, perceptual_hash
from vitrail.data.image_io import open_image


def all_pairs(hashes: np.ndarray, distance: int) -> list[list[int]]:
    """The slow readable twin."""
    words = hashes.tolist()
    pairs = ((i, j) for i in range(len(words)) for j in range(i + 1, len(words)))
    return [[i, j] for i, j in pairs if (words[i] ^ words[j]).bit_count() <= distance]


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("spread", [64, 20, 6])
def test_banded_search_equals_the_exhaustive_search(distance, spread):
    """Hashes that differ in few places only (a small spread) fall into crowded bands."""
    source = np.random.default_rng(distance + spread)
    places = source.permutation(64)[:spread]
    bits = source.integers(0, 2, (300, spread)).astype(np.uint64)
    hashes = np.unique((bits << places.astype(np.uint64)).sum(1, dtype=np.uint64))
    flips = np.uint64(1) << source.integers(0, 64, 40).astype(np.uint64)
    hashes = np.unique(np.concatenate([hashes, hashes[:40] ^ flips[: len(hashes[:40])]]))
    assert near_pairs(hashes, distance).tolist() == all_pairs(hashes, distance)


@pytest.mark.parametrize("count", [0, 1])
def test_few_hashes_have_no_pairs(count):
    assert near_pairs(np.arange(count, dtype=np.uint64)).shape == (0, 2)


def test_groups():
    assert equal_groups([b"x", None, b"y", b"x", None, b"x"]) == [[0, 3, 5]]
    assert linked(6, [(4, 1), (5, 4), (2, 3)]) == [[1, 4, 5], [2, 3]]
    assert linked(3, []) == []


def test_a_hash_is_robust_and_discriminative():
    pytest.importorskip("imagehash")
    hashes = [perceptual_hash(smooth_image(n, (120, 90))) for n in range(30)]
    again = [
        perceptual_hash(open_image(encoded(smooth_image(n, (120, 90)).resize((200, 150)), "JPEG"))) for n in range(30)
    ]
    found = [(one ^ other).bit_count() <= NEAR_DISTANCE for one, other in zip(hashes, again, strict=True)]
    assert sum(found) >= 28
    assert near_pairs(np.unique(np.array(hashes, dtype=np.uint64))).tolist() == []


def test_images_without_content_have_no_hash():
    pytest.importorskip("imagehash")
    assert perceptual_hash(Image.new("RGB", (50, 50), (9, 99, 9))) is None
    assert perceptual_hash(smooth_image(1, (12, 40))) is None
