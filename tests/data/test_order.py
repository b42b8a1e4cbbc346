"""The order of samples is a pure function; ranks and resumption only look at parts of it."""

from itertools import chain, islice

import numpy as np
import pytest
from scipy import stats

from vitrail.data.sampler import ResumableSampler
from vitrail.errors import VitrailError


def steps(order: ResumableSampler, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in order.batches(epoch, start)]


def test_an_epoch_is_a_permutation_and_each_epoch_another():
    order = ResumableSampler(101, 10, seed=3)
    assert sorted(order.permutation(0)) == list(range(101))
    assert (order.permutation(0) == ResumableSampler(101, 10, seed=3).permutation(0)).all()
    assert (order.permutation(0) != order.permutation(1)).any()
    assert (order.permutation(0) != ResumableSampler(101, 10, seed=4).permutation(0)).any()


@pytest.mark.parametrize("start", [0, 1, 7, 10])
def test_resuming_is_skipping_without_walking(start):
    order = ResumableSampler(103, 10, seed=1)
    assert steps(order, epoch=5, start=start) == list(islice(steps(order, epoch=5), start, None))
    assert order.steps == 10


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_the_global_batch_does_not_depend_on_the_world(world):
    alone = steps(ResumableSampler(100, 12, seed=9), epoch=2)
    ranks = [steps(ResumableSampler(100, 12, seed=9, rank=rank, world=world), epoch=2) for rank in range(world)]
    assert [list(chain(*pieces)) for pieces in zip(*ranks, strict=True)] == alone
    assert {len(piece) for rank in ranks for piece in rank} == {12 // world}


@pytest.mark.parametrize("length", [1, 5, 7, 8, 31, 32, 33])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_evaluation_shows_each_sample_once(length, world):
    ranks = [
        steps(ResumableSampler(length, 8, shuffle=False, drop_last=False, rank=rank, world=world))
        for rank in range(world)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    assert sorted(number for rank in ranks for batch in rank for number in batch) == list(range(length))


def test_the_shuffle_has_no_favourite_places():
    first = [ResumableSampler(16, 16, seed=seed).permutation(epoch)[0] for seed in range(20) for epoch in range(80)]
    assert stats.chisquare(np.bincount(first, minlength=16)).pvalue > 0.01


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 10, "batch_size": 4, "world": 3}, "multiple of 3"),
        ({"length": 10, "batch_size": 11}, "at most 10"),
        ({"length": 0, "batch_size": 1}, "at least 1"),
        ({"length": 4, "batch_size": 2, "rank": 2, "world": 2}, "Rank 2"),
    ],
)
def test_sizes_that_do_not_fit_are_reported(options, said):
    with pytest.raises(VitrailError, match=said):
        ResumableSampler(**options)
    with pytest.raises(VitrailError, match="outside"):
        list(ResumableSampler(10, 5).batches(0, start_step=3))
