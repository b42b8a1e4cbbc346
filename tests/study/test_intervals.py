"""Intervals: against formulas written out, and a ranking that refuses."""

import math

import numpy as np
import pytest

from vitrail.study.charts import Curve, dot_chart, line_chart, with_interval
from vitrail.study.intervals import Estimate, bootstrap, difference, mean_interval, rank, ratio_interval


def test_student_interval_equals_the_table() -> None:
    found = mean_interval([1.0, 2.0, 4.0])
    reach = 4.302652729911275 * np.std([1.0, 2.0, 4.0], ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom at 97.5 %
    assert found.high - found.mean == pytest.approx(reach) and found.mean - found.low == pytest.approx(reach)


def test_pairs_remove_what_both_share() -> None:
    seeds = [0.5, 0.7, 0.9]  # a strong effect of the seed, a small one of the condition
    shifted = [value + gain for value, gain in zip(seeds, (0.02, 0.021, 0.019), strict=True)]
    assert difference(shifted, seeds).sign == 1
    assert mean_interval(shifted).low < mean_interval(seeds).high


def test_more_comparisons_widen_the_interval() -> None:
    assert mean_interval([1.0, 2.0, 4.0], comparisons=5).high > mean_interval([1.0, 2.0, 4.0]).high


@pytest.mark.parametrize("values", [[], [1.0], [0.5, 0.5]])
def test_too_few_values_have_no_interval(values: list[float]) -> None:
    assert not mean_interval(values).known and mean_interval(values).sign == 0


def test_ratios_are_averaged_by_logarithm() -> None:
    assert ratio_interval([0.25, 4.0, 1.0]).mean == pytest.approx(1.0)


def test_bootstrap_holds_the_mean_at_its_rate() -> None:
    rng = np.random.default_rng(1)
    held = [bootstrap(rng.normal(0.3, 1, 30), np.zeros(30), draws=400) for _ in range(60)]
    assert 0.8 < np.mean([one.low <= 0.3 <= one.high for one in held]) <= 1.0


def test_ranking_refuses_where_intervals_overlap() -> None:
    close = {"a": {0: 0.90, 1: 0.92, 2: 0.91}, "b": {0: 0.91, 1: 0.90, 2: 0.91}, "c": {0: 0.5, 1: 0.52, 2: 0.51}}
    found = rank(close)
    assert set(found.tied) == {"a", "b"} and found.order[-1] == "c" and not found.decided


def test_ranking_of_one_seed_ties_all() -> None:
    assert rank({"a": {0: 0.9}, "b": {0: 0.1}}).tied == ["a", "b"]


def test_ranking_takes_common_seeds_and_the_direction() -> None:
    found = rank({"slow": {0: 2.0, 1: 2.1, 2: 9.0}, "fast": {0: 1.0, 1: 1.1}}, higher=False)
    assert found.order == ["fast", "slow"] and found.decided


def test_equal_noise_ties_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(60):
        values = {name: dict(enumerate(rng.normal(0.9, 0.01, 3))) for name in "abcdef"}
        wrong += len(rank(values).tied) < 6
    assert wrong <= 18  # the best of six is chosen by the same data, so a little above 5 %


def test_charts_survive_missing_intervals_and_logarithms_of_zero() -> None:
    lone = Estimate(0.5, -math.inf, math.inf, 1)
    assert "inf" not in dot_chart([("a", lone)], "x") and with_interval(lone, percent=True) == "50.0%"
    chart = line_chart(
        [Curve("a", [(1.0, Estimate(0.0, 0.0, 0.0, 2)), (10.0, lone)])], "x", "y", log_x=True, log_y=True
    )
    assert "nan" not in chart and "inf" not in chart
