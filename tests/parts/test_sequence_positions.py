"""Positions of sequences: formulas, slices, shift invariance, incremental equality."""

import math

import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.parts.key_value_cache import KeyValueCache
from vitrail.parts.sequence_positions import (
    ALiBi,
    RotaryPosition,
    SequencePosition,
    SinusoidalPosition,
    SplitSinusoidalPosition,
)


def test_sinusoids_follow_the_formula_far_out():
    x, _ = SinusoidalPosition(6)(torch.zeros(1, 3, 6), TokenSequence(3, start=9_998))
    for row, t in enumerate(range(9_998, 10_001)):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert x[0, row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert x[0, row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_split_sinusoids_are_the_same_in_another_order():
    zeros, layout = torch.zeros(1, 5, 8), TokenSequence(5)
    turns, split = SinusoidalPosition(8)(zeros, layout)[0], SplitSinusoidalPosition(8)(zeros, layout)[0]
    assert torch.equal(torch.cat([turns[..., 0::2], turns[..., 1::2]], dim=-1), split)


def test_a_table_is_sliced_and_refuses_longer_input():
    position = SequencePosition(4, capacity=6)
    x, _ = position(torch.zeros(2, 3, 4), TokenSequence(3, start=2))
    assert torch.equal(x[1], position.table[2:5])
    with pytest.raises(VitrailError, match="input has 7 tokens, and this model has positions for 6"):
        position(torch.zeros(1, 3, 4), TokenSequence(3, start=4))


def test_rotation_equals_complex_numbers_and_depends_on_the_distance_alone():
    q, k = torch.randn(2, 1, 2, 5, 8).double().unbind()
    rotated, _ = RotaryPosition(8).rotate(q, k, TokenSequence(5, start=3))
    turn = torch.polar(
        torch.ones(5, 4).double(), torch.arange(3, 8)[:, None] / 10_000 ** (torch.arange(4) / 4).double()
    )
    want = torch.view_as_real(torch.view_as_complex(q.unflatten(-1, (4, 2))) * turn).flatten(-2)
    torch.testing.assert_close(rotated, want, rtol=1e-6, atol=1e-6)
    scores = []
    for start in (0, 100):
        a, b = RotaryPosition(8).rotate(q, k, TokenSequence(5, start=start))
        scores.append(a @ b.mT)
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def test_slopes_are_the_papers():
    assert ALiBi(8).slopes.tolist() == [2.0**-i for i in range(1, 9)]
    torch.testing.assert_close(ALiBi(12).slopes[8:], torch.tensor([2 ** -(i / 2) for i in (1, 3, 5, 7)]))


def test_biases_of_a_cached_step_are_the_last_rows():
    whole = ALiBi(4).bias(torch.zeros(1, 4, 6, 2), TokenSequence(6))
    step = ALiBi(4).bias(torch.zeros(1, 4, 2, 2), TokenSequence(2, start=4, cache=KeyValueCache(6)))
    assert whole is not None and step is not None and torch.equal(whole[:, 4:], step)


@pytest.mark.parametrize("make", [SinusoidalPosition, RotaryPosition])
def test_odd_widths_are_refused(make):
    with pytest.raises(VitrailError, match="even"):
        make(5)
