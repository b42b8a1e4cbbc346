"""The rate is a function of the share of the run, with the values of the papers at the ends."""

import math
from itertools import pairwise

import pytest

from vitrail.errors import VitrailError
from vitrail.training.reporters import StepStats, Throughput, clock
from vitrail.training.schedule import SHAPES, Schedule, Seconds, Steps


def test_cosine_with_warmup_equals_the_formula() -> None:
    schedule = Schedule(lr=3e-3, min_lr=1e-5, warmup=0.25)
    for i in range(101):
        share = i / 100
        if share < 0.25:
            want = 3e-3 * share / 0.25
        else:
            want = 1e-5 + 0.5 * (3e-3 - 1e-5) * (1 + math.cos(math.pi * (share - 0.25) / 0.75))
        assert schedule.rate(share) == pytest.approx(want, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("shape", SHAPES)
def test_learning_rate_is_continuous_and_bounded(shape: str) -> None:
    schedule = Schedule(lr=1.0, min_lr=0.01, warmup=0.1, shape=shape)
    rates = [schedule.rate(i / 1000) for i in range(1001)]
    assert max(rates) == pytest.approx(1.0)
    assert all(abs(b - a) < 0.011 for a, b in pairwise(rates))
    assert rates[0] == 0.0 and all(0.01 - 1e-12 <= rate <= 1.0 for rate in rates[100:])


def test_no_update_of_a_run_has_a_rate_of_zero() -> None:
    length, schedule = Steps(10), Schedule(lr=1.0, warmup=0.3)
    rates = [schedule.rate(length.share(step, seconds=0.0)) for step in range(10)]
    assert min(rates) > 0
    assert length.over(10, 0.0) and not length.over(9, 1e9)


def test_a_run_in_minutes_follows_the_clock_alone() -> None:
    length = Seconds(60.0)
    assert length.share(10**9, 15.0) == 0.25
    assert length.over(0, 60.0) and not length.over(10**9, 59.9)


def test_an_unknown_shape_is_refused_with_the_nearest() -> None:
    with pytest.raises(VitrailError, match="Did you mean: cosine"):
        Schedule(lr=1.0, shape="cosin")


@pytest.mark.parametrize("length", [Steps(7), Seconds(7.0)])
def test_progress_goes_from_zero_to_one(length: Steps | Seconds) -> None:
    done = [length.done(step, float(step)) for step in range(9)]
    assert done[0] == 0.0 and done[7] == done[8] == 1.0 and done == sorted(done)


@pytest.mark.parametrize("length", [Steps(3), Seconds(3.0)])
def test_no_update_remains_after_the_last(length: Steps | Seconds, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("vitrail.training.reporters.time.monotonic", lambda: now[0])
    pace, left = Throughput(), []
    for step in (1, 2, 3):
        now[0] = float(step)
        pace.take(StepStats(step, 0.0, length.done(step, now[0]), 1.0, 1e-3, 8))
        left.append(pace.left())
    assert left == [None, pytest.approx(1.0), pytest.approx(0.0)]
    assert clock(left[-1]) == "0:00"
