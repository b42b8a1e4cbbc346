"""The language of key maps: both directions agree, and nonsense does not match."""

from itertools import cycle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitrail.weights.formats import FORMATS
from vitrail.weights.key_pattern import Pattern
from vitrail.weights.keymap import Format, Rule
from vitrail.weights.transforms import DROP, Concat, PointwiseConv, RelativeIndex, UnfoldOrder

PATTERNS = sorted(
    {
        pattern.text
        for one in FORMATS
        for rule in one.rules
        for side in rule.patterns
        for pattern in side
        if "{*}" not in pattern.text
    }
)


@given(st.sampled_from(PATTERNS), st.integers(0, 40), st.integers(0, 40), st.integers(0, 1))
def test_a_filled_pattern_matches_itself(text: str, first: int, second: int, word: int):
    pattern = Pattern(text)
    numbers = cycle((first, second))  # some patterns have three
    binding = tuple(
        sorted({place.name: word if hasattr(place, "words") else next(numbers) for place in pattern.places}.items())
    )
    assert pattern.match(pattern.fill(binding)) == binding


def test_numbers_are_shifted_by_their_offset():
    ours, theirs = Pattern("stages.{s}.blocks.{i}"), Pattern("block{s+1}.unit{i+2:02}")
    assert theirs.fill(ours.match("stages.0.blocks.7") or ()) == "block1.unit09"
    assert theirs.match("block1.unit9") is None, "two digits are written"
    assert theirs.match("block0.unit09") is None, "there is no stage -1"
    assert Pattern("features.{2s+1}").match("features.4") is None, "4 is no odd number"


def test_the_same_letter_is_the_same_number():
    assert Pattern("a.{i}.b.{i}").match("a.1.b.1") is not None
    assert Pattern("a.{i}.b.{i}").match("a.1.b.2") is None


def test_optional_text_may_be_missing_and_is_written():
    pattern = Pattern("(vit.)layers.{i}")
    assert pattern.match("layers.3") == pattern.match("vit.layers.3") == (("i", 3),)
    assert pattern.fill((("i", 3),)) == "vit.layers.3"


def test_a_dot_is_a_dot():
    assert Pattern("a.b").match("axb") is None


def test_no_two_rules_of_a_format_claim_one_key():
    for one in FORMATS:
        texts = [pattern.text for rule in one.rules if rule.operation is not DROP for pattern in rule.patterns[0]]
        assert len(texts) == len(set(texts)), (one.name, one.families)


def test_every_mark_is_a_key_that_some_rule_reads():
    for one in FORMATS:
        keys = [
            Pattern(mark).fill(tuple((p.name, 0 if p.name != "*" else "") for p in Pattern(mark).places))
            for mark in one.marks
        ]
        for key in keys:
            fits = any(pattern.match(key) is not None for rule in one.rules for pattern in rule.patterns[0])
            assert fits or "{*}" in "".join(one.marks), (one.name, one.families, key)


def test_unknown_and_incomplete_keys_are_reported():
    rule = Rule(("q.{i}", "k.{i}", "v.{i}"), "qkv.{i}", Concat(0, 3))
    mapped = Format("x", (), (rule,), ()).read({"q.0": torch.ones(2), "v.0": torch.ones(2), "other": torch.ones(1)})
    assert mapped.unexpected == ["other"] and mapped.incomplete == ["k.0"] and not mapped.tensors


def test_one_token_is_not_cut_in_two():
    rule = Rule(("cls", "dist"), "tokens", Concat(1, 2))
    mapped = Format("x", (), (rule,), ()).write({"tokens": torch.ones(1, 1, 4)}, config=None)
    assert mapped.incomplete == ["tokens"] and not mapped.tensors


def test_unfold_order_equals_torch_unfold():
    """mmpretrain merges by nn.Unfold; the same norm and weights, in their order, must give the same tokens."""
    torch.manual_seed(0)
    cells, dim = torch.randn(2, 3, 6, 8), 3
    x0, x1, x2, x3 = (cells[:, :, down::2, right::2] for down, right in ((0, 0), (1, 0), (0, 1), (1, 1)))
    official = torch.cat([x0, x1, x2, x3], 1).flatten(2).transpose(1, 2)  # (B, 4C, H/2, W/2) -> (B, N, 4C)
    unfolded = torch.nn.functional.unfold(cells, 2, stride=2).transpose(1, 2)
    weight = torch.randn(5, 4 * dim)
    (theirs,) = UnfoldOrder().write(weight, config=None)
    torch.testing.assert_close(unfolded @ theirs.T, official @ weight.T)
    assert torch.equal(UnfoldOrder().read(theirs)[0], weight)


def test_the_relative_index_equals_torchvision():
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    peer = ShiftedWindowAttention(8, [5, 5], [0, 0], num_heads=2)
    (index,) = RelativeIndex(flat=True).write(torch.zeros(81, 2), config=None)
    assert torch.equal(index, peer.relative_position_index)


@pytest.mark.parametrize("shape", [(6, 4), (6,)])
def test_a_pointwise_convolution_is_a_linear_layer(shape):
    ours = torch.randn(shape)
    (theirs,) = PointwiseConv().write(ours, config=None)
    assert theirs.shape == (*shape, 1, 1)[: 4 if len(shape) == 2 else 1]
    assert torch.equal(PointwiseConv().read(theirs)[0], ours)
