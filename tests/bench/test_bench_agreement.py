"""Accuracy check of a benchmark: rounding passes, a wrong candidate is caught."""

import pytest
import torch

from vitrail.fused.accuracy import BARS, compare

CLASSES = 50


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(64, CLASSES)


def test_equal_logits_have_zero_error(logits):
    for precision in BARS:
        same = compare(logits, logits, precision)
        assert same.holds and same.error == 0.0 and same.same == 1.0 and same.same_decided == 1.0


def test_bf16_rounding_passes_the_bf16_tolerance_and_fails_fp32(logits):
    rounded = logits.to(torch.bfloat16)
    assert compare(rounded, logits, "bf16").holds
    assert not compare(rounded, logits, "fp32").holds


def test_int8_error_passes_only_the_int8_tolerance(logits):
    off = logits + 0.025 * (logits.max() - logits.min()) * (2 * torch.rand_like(logits) - 1)
    assert compare(off, logits, "int8").holds
    assert not compare(off, logits, "bf16").holds


def swap_two_classes(x):
    return x[:, [1, 0, *range(2, CLASSES)]]


def shuffle_pictures(x):
    return x.roll(1, 0)


def forget_one_picture(x):
    return torch.cat([x[:-1], torch.zeros_like(x[-1:])])


def not_a_number(x):
    return x.clone().index_fill_(0, torch.tensor([3]), torch.nan)


WRONG = [
    swap_two_classes,
    shuffle_pictures,
    forget_one_picture,
    not_a_number,
    lambda x: x / 2,
    lambda x: x + 1.0,
    lambda x: -x,
    lambda x: torch.full_like(x, torch.inf),
]


@pytest.mark.parametrize("precision", BARS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_candidate_is_caught(logits, wrong, precision):
    assert not compare(wrong(logits), logits, precision, trained=True).holds
    assert not compare(wrong(logits), logits, precision, trained=False).holds


def test_non_finite_error_is_none_in_json(logits):
    assert compare(not_a_number(logits), logits, "bf16").error is None


def test_errors_are_shares_of_the_largest_logit_or_of_the_range():
    expected = torch.tensor([[0.0, 8.0], [-2.0, 0.0]])
    assert compare(expected + 1.0, expected, "fp32").error == pytest.approx(1 / 8)
    assert compare(expected + 1.0, expected, "bf16").error == pytest.approx(1 / 10)


def leaders(margin: float, images: int = 100) -> torch.Tensor:
    """Logits over a range of 1 whose best class leads by `margin`."""
    return torch.tensor([[1.0, 1.0 - margin, 0.0]]).repeat(images, 1)


def test_images_without_a_clear_leader_count_only_where_weights_are_trained():
    expected, got = leaders(0.001), leaders(-0.001)  # another class is best, by next to nothing
    got = got - (got.max() - 1.0)
    random, trained = (compare(got, expected, "bf16", trained) for trained in (False, True))
    assert random.same == trained.same == 0.0 and random.decided == 0
    assert random.holds and not trained.holds


def test_top1_must_agree_on_99_percent_of_clear_images():
    expected = leaders(0.015)  # more than half the bar
    for turned, holds in ((1, True), (2, False)):
        got = expected.clone()
        got[:turned, :2] = torch.tensor([0.985, 0.99])  # within the bar of 0.02, and another class
        found = compare(got, expected, "bf16", trained=False)
        assert found.decided == 100 and found.error <= BARS["bf16"] and found.holds == holds


def test_logits_of_another_shape_are_refused(logits):
    with pytest.raises(ValueError, match="shape"):
        compare(logits[:, :-1], logits, "fp32")
