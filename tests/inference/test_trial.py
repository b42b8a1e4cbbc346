"""A trial runs as few passes as possible: models of set speed and error, a simulated clock, and a count of passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.fused.ab_trial import MARGINS, MOST, WORTH, TrialArm, TrialResult, try_out
from vitrail.fused.accuracy import BARS

LOGITS = torch.linspace(-1, 1, 8 * 5).reshape(8, 5).sin() * 3
IMAGES = torch.arange(8.0).reshape(8, 1, 1, 1)
SPAN = (LOGITS.max(1).values - LOGITS.min(1).values).min().item()  # of the image whose logits are closest


class Stub:
    """A form that takes so many seconds an image and is so far off; `first` seconds more in its first call.

    Every image carries its own number, so outputs are those of the image in any batch.
    """

    def __init__(self, seconds: float, off: float = 0.0, first: float = 0.0):
        self.seconds, self.off, self.first, self.asked = seconds, off, first, []
        self.now = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        numbers = [int(number) for number in images.flatten().tolist()]
        self.now += self.seconds * len(numbers) + (self.first if not self.asked else 0.0)
        self.asked += numbers
        sign = torch.tensor([(-1.0) ** number for number in numbers])[:, None]
        return LOGITS[numbers] + self.off * sign


def timed(form: Any, images: Tensor) -> tuple[Tensor, float]:
    before = form.now
    return form(images), form.now - before


def meet(plain: Stub, fast: Stub, precision: str = "bf16", images: Tensor = IMAGES, size: int = 1) -> TrialResult:
    usual = TrialArm(plain, images, size, timed)
    return try_out(TrialArm(fast, images, size, timed), usual, usual, precision)


def test_a_3x_speedup_is_decided_after_one_image() -> None:
    plain, fast = Stub(0.3), Stub(0.1)
    verdict = meet(plain, fast)
    assert verdict.reason is None and verdict.speedup == pytest.approx(3)
    assert plain.asked == fast.asked == [0]


@pytest.mark.parametrize(("ratio", "turns"), [(2.2, 1), (2.0, 2), (1.6, 2), (1.5, 3), (1.3, 3), (1.2, 4), (1.06, 4)])
def test_ratios_near_one_take_more_rounds(ratio: float, turns: int) -> None:
    plain, fast = Stub(0.3 * ratio), Stub(0.3)
    assert meet(plain, fast).reason is None
    assert plain.asked == fast.asked == list(range(turns))


@pytest.mark.parametrize(("ratio", "turns"), [(0.3, 2), (0.69, 2), (0.8, 3), (0.9, 4), (1.04, 4)])
def test_slower_is_never_decided_by_a_first_call(ratio: float, turns: int) -> None:
    plain, fast = Stub(0.3 * ratio), Stub(0.3)
    assert meet(plain, fast).reason == f"the fast one in bf16 is no faster here ({ratio:.2f}x)"
    assert plain.asked == list(range(turns))  # the plain model's outputs are kept, so none is lost


@pytest.mark.parametrize("off", [0.49, 0.51, 0.7, 0.99])
def test_errors_near_the_tolerance_are_measured_again(off: float) -> None:
    """One image counts only within half the bar: the errors of others were up to about twice as large."""
    bar = BARS["bf16"] * (LOGITS[:4].max() - LOGITS[:4].min()).item()
    plain, fast = Stub(0.3), Stub(0.01, off * bar)
    assert meet(plain, fast).reason is None
    first = off * bar / (LOGITS[0].max() - LOGITS[0].min()).item() / BARS["bf16"]
    assert (len(plain.asked) > 1) == (first > 0.5)


def test_wrong_outputs_are_rejected() -> None:
    plain, fast = Stub(0.3), Stub(0.01, 1.0)
    reason = meet(plain, fast).reason
    assert reason is not None and reason.startswith("the answers of the fast one in bf16 are ")
    assert plain.asked == list(range(len(MARGINS)))


def test_nan_ends_the_trial_at_once() -> None:
    plain, fast = Stub(0.3), Stub(0.1, float("nan"))
    assert meet(plain, fast).reason == "the answers of the fast one in bf16 are not numbers"
    assert plain.asked == [0]


def test_one_ambiguous_image_does_not_reject_a_candidate() -> None:
    """If two classes have almost the same logit, rounding is large relative to their range; other images decide."""
    logits = torch.tensor([[5.0, 5.01], [2.0, -3.0], [-2.0, 4.0], [1.0, -4.0]])

    def asking(off: float) -> Callable[[Tensor], Tensor]:
        return lambda images: logits[images.flatten().long()] + torch.tensor([off, -off])

    def free(form: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, float]:
        return form(images), 0.3 if form is plain else 0.1

    plain, fast = asking(0.0), asking(0.001)
    usual = TrialArm(plain, IMAGES[:4], 1, free)
    assert try_out(TrialArm(fast, IMAGES[:4], 1, free), usual, usual, "bf16").reason is None


def test_first_calls_that_compile_are_not_timed() -> None:
    plain, fast = Stub(0.3, first=15.0), Stub(0.1)  # as where the plain model compiles its own kernels
    verdict = meet(plain, fast)
    assert verdict.speedup == pytest.approx(3) and plain.asked == [0, 1]
    plain, fast = Stub(0.02, first=0.05), Stub(0.01)  # as where a small model loads a library
    assert meet(plain, fast).speedup == pytest.approx(2) and MOST > 0.07 / 0.01
    plain, fast = Stub(0.3), Stub(0.1, first=3.0)
    assert meet(plain, fast).speedup == pytest.approx(3)


@pytest.mark.parametrize(("quiet", "taken"), [(0.2, False), (0.31, False), (0.32, True), (0.9, True)])
@pytest.mark.parametrize("load", [(2, 1, 2, 1), (1, 2, 1, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize("busy", ["plain", "fast"])
def test_load_in_one_of_two_turns_changes_no_decision(
    quiet: float, taken: bool, load: tuple[int, ...], busy: str
) -> None:
    """One of the two takes twice as long in some turns; a fast form of 0.3 s an image is taken from 0.315 s on."""
    forms = {"plain": Stub(quiet), "fast": Stub(0.3)}

    def loaded(form: Stub, images: Tensor) -> tuple[Tensor, float]:
        turn = len(form.asked)
        logits, seconds = timed(form, images)
        return logits, seconds * (load[turn] if form is forms[busy] else 1)

    plain, fast = (TrialArm(forms[name], IMAGES, 1, loaded) for name in ("plain", "fast"))  # type: ignore[arg-type]
    assert try_out(fast, plain, plain, "bf16").faster is taken


@pytest.mark.parametrize(("images", "size", "turns"), [(1, 1, 4), (2, 1, 4), (3, 1, 4), (8, 3, 4), (8, 8, 2)])
def test_small_batches_are_repeated_for_timing_only(images: int, size: int, turns: int) -> None:
    plain, fast = Stub(WORTH * 0.3), Stub(0.3 - 1e-9)
    sides = [TrialArm(form, IMAGES[:images], size, timed) for form in (fast, plain)]
    for turn in range(turns):
        for side in sides:
            side.ask(turn)
            side.ask(turn)  # once is enough
    whole = images // size
    assert plain.asked == [i for turn in range(turns) for i in range(turn % whole * size, (turn % whole + 1) * size)]
    assert torch.equal(sides[1].answers, LOGITS[: min(turns, whole) * size])


def test_reference_outputs_are_reused_for_a_second_candidate() -> None:
    plain, wrong, right = Stub(0.3), Stub(0.1, 1.0), Stub(0.1)
    usual = TrialArm(plain, IMAGES, 1, timed)
    assert try_out(TrialArm(wrong, IMAGES, 1, timed), usual, usual, "int8").reason is not None
    assert plain.asked == [0, 1, 2, 3]
    assert try_out(TrialArm(right, IMAGES, 1, timed), usual, usual, "bf16").reason is None
    assert plain.asked == [0, 1, 2, 3] and right.asked == [0]


def test_the_reference_runs_as_often_as_the_candidate() -> None:
    plain, truth, fast = Stub(0.3, off=0.01), Stub(9.0), Stub(0.1)
    sides = [TrialArm(form, IMAGES, 1, timed) for form in (fast, plain, truth)]
    verdict = try_out(sides[0], sides[1], sides[2], "bf16")
    assert truth.asked == fast.asked == [0]
    assert verdict.agreement.error == 0 and verdict.speedup == pytest.approx(3)  # by the plain form's time
