"""Wilson's interval against the equation that defines it, and F1's against F1."""

import pytest
from sklearn.metrics import f1_score

from vitrail.tasks.confidence_interval import Z95, f1_interval, wilson


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (50, 1000), (999, 1000)])
def test_wilson_ends_solve_the_score_equation(hits: int, total: int) -> None:
    # The interval is the set of p with |share - p| <= z sqrt(p (1 - p) / n): at its ends both sides are equal.
    rate = wilson(hits, total)
    share = hits / total
    assert rate.value == share
    assert 0 <= rate.low <= share <= rate.high <= 1
    for end in (rate.low, rate.high):
        assert abs(share - end) == pytest.approx(Z95 * (end * (1 - end) / total) ** 0.5, abs=1e-12)


def test_no_samples_have_no_interval() -> None:
    assert wilson(0, 0) == (None, 0.0, 1.0)
    assert f1_interval(0, 0).value is None


def test_published_example() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 15 of 148 gives 0.0624 to 0.1605 (score method).
    for hits, total, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)]:
        rate = wilson(hits, total)
        assert (round(rate.low, 4), round(rate.high, 4)) == (low, high)


def test_f1_is_scikit_learns() -> None:
    truth, said = [1, 1, 1, 0, 0, 1, 0], [1, 0, 1, 1, 0, 1, 0]
    rate = f1_interval(hits=3, wrong=2)
    assert rate.value == pytest.approx(f1_score(truth, said))
    assert rate.low < rate.value < rate.high
