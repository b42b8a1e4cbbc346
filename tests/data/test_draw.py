"""Stateless random draws: published generator, independence, distributions."""

import numpy as np
import pytest
from scipy import stats

from vitrail.data.stateless_rng import BatchRng, splitmix64

MASK = 2**64 - 1


def splitmix(x: int) -> int:
    """The slow readable twin, in Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_scramble_is_the_published_generator():
    words = np.array([0, 1, 2**63, MASK, 1234567], dtype=np.uint64)
    assert splitmix64(words).tolist() == [splitmix(int(word)) for word in words]
    # The first outputs of SplitMix64 with state 1234567, as published with the algorithm.
    state, outputs = 1234567, []
    for _ in range(3):
        outputs.append(splitmix(state))
        state = (state + 0x9E3779B97F4A7C15) & MASK
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_are_independent_of_each_other():
    index = np.array([5, 900, 3, 44])
    together = BatchRng(7, 2, index)
    for row, number in enumerate(index):
        alone = BatchRng(7, 2, np.array([number]))
        assert together.uniform("flip")[row] == alone.uniform("flip")[0]
        assert (together.normal("noise", 5)[row] == alone.normal("noise", 5)[0]).all()
        assert together.take(np.array([row])).integers("crop", 9, 3).tolist() == alone.integers("crop", 9, 3).tolist()


@pytest.mark.parametrize(
    "other", [BatchRng(8, 2, np.arange(999)), BatchRng(7, 3, np.arange(999)), BatchRng(7, 2, np.arange(1, 1000))]
)
def test_seed_epoch_sample_and_purpose_all_matter(other):
    draws = BatchRng(7, 2, np.arange(999))
    assert abs(np.corrcoef(draws.uniform("a"), other.uniform("a"))[0, 1]) < 0.1
    assert abs(np.corrcoef(draws.uniform("a"), draws.uniform("b"))[0, 1]) < 0.1
    assert not (draws.words("a") == other.words("a")).any()


def test_seeds_may_be_negative_or_huge():
    values = {BatchRng(seed, 0, np.array([0])).words("a")[0] for seed in (-1, 0, 1, 2**63, 2**70 + 5)}
    assert len(values) == 5


def test_distributions_have_their_moments():
    draws = BatchRng(0, 0, np.arange(20_000))
    assert stats.kstest(draws.uniform("u", -2, 3), "uniform", (-2, 5)).pvalue > 0.01
    assert stats.kstest(BatchRng(0, 0, np.arange(200)).normal("n", 101).ravel(), "norm").pvalue > 0.01
    assert stats.chisquare(np.bincount(draws.integers("i", 14), minlength=14)).pvalue > 0.01
