"""Turns and spreads: everybody meets the same minutes, and one spoiled round moves no figure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.bench.interleaved_timing import Timings, alternate, rotated
from vitrail.bench.statistics import Quantiles, quantile

times = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30)


class FakeClock:
    """A clock that moves only when a candidate works."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, []

    def __call__(self) -> float:
        return self.now

    def worker(self, name: str, seconds):
        """Return a candidate that takes `seconds`, or a function of the time."""

        def work() -> None:
            self.log.append(name)
            self.now += seconds(self.now) if callable(seconds) else seconds

        return work


def test_every_candidate_runs_in_each_round_in_rotating_order():
    clock = FakeClock()
    alternate({name: clock.worker(name, 1.0) for name in "abc"}, rounds=4, seconds=1.0, clock=clock)
    assert "".join(clock.log) == "abc" + "bca" + "cab" + "abc"


def test_no_candidate_always_follows_the_same_one():
    rounds = [rotated(list("abcd"), number) for number in range(4)]
    assert [{order.index(name) for order in rounds} for name in "abcd"] == [{0, 1, 2, 3}] * 4


def test_the_first_call_of_a_turn_is_warm_up():
    clock, cold = FakeClock(), iter([0.375, 0.125, 0.125, 0.125, 0.125])
    turns = alternate({"a": clock.worker("a", lambda now: next(cold))}, rounds=1, seconds=0.5, clock=clock)["a"]
    assert turns.seconds == ((0.125,) * 4,)


def test_a_first_call_as_long_as_a_turn_is_counted():
    clock = FakeClock()
    turns = alternate({"a": clock.worker("a", 2.0)}, rounds=2, seconds=0.5, clock=clock)["a"]
    assert turns.seconds == ((2.0,), (2.0,)) and clock.log == ["a", "a"]


def test_a_turn_ends_after_the_most_calls():
    clock = FakeClock()
    turns = alternate({"a": clock.worker("a", 1e-9)}, rounds=1, seconds=1.0, most=7, clock=clock)["a"]
    assert len(turns.seconds[0]) == 7


def test_a_slowing_machine_does_not_change_ratios():
    # After half of the rounds everything takes three times as long. One after the other, ours first, it would be 6.
    clock = FakeClock()
    ours, peer = (clock.worker("", lambda now, s=s: s * (3.0 if now >= 1.5 else 1.0)) for s in (0.125, 0.25))
    turns = alternate({"ours": ours, "peer": peer}, rounds=8, seconds=0.125, clock=clock)
    assert turns["ours"].times_as_fast(turns["peer"]) == (2.0, 2.0, 2.0, 8)
    assert turns["ours"].rounds == (0.125,) * 4 + (0.375,) * 4


def test_an_outlier_round_does_not_change_results():
    calm, spoiled = Timings(((1.0,),) * 7), Timings((*((1.0,),) * 6, (90.0,)))
    assert spoiled.spread == calm.spread and spoiled.times_as_fast(calm).median == 1.0


def test_ratio_is_speed_over_speed():
    fast, slow = Timings(((1.0,), (2.0,))), Timings(((4.0,), (8.0,)))
    assert fast.times_as_fast(slow).median == 4.0 and slow.times_as_fast(fast).median == 0.25


def test_p95_is_over_calls_and_the_median_over_rounds():
    turns = Timings(((1.0,) * 9 + (50.0,), (1.0,) * 10))
    assert turns.spread.median == 1.0 and 1.0 <= turns.p95 < 50.0
    assert Timings(((1.0,) * 9 + (50.0,),) * 2).p95 == 50.0


def test_progress_is_reported_after_each_round():
    told: list[int] = []
    alternate({"a": lambda: None}, rounds=3, seconds=0.0, on_round=told.append)
    assert told == [1, 2, 3]


@given(times, st.floats(0, 1))
def test_quantiles_are_numpys(values, share):
    assert quantile(values, share) == pytest.approx(np.quantile(values, share))


@given(times)
def test_quantiles_contain_the_median(values):
    spread = Quantiles.of(values)
    assert spread.low <= spread.median <= spread.high and spread.count == len(values)
    assert spread.noise == pytest.approx((spread.high - spread.low) / 2 / spread.median)


def test_quantile_of_no_values_is_refused():
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)
