"""Native decoding of translations against the plain model: scores, beams, batches; the best words of each row."""

import copy

import pytest
import torch
from small_texts import small

import vitrail
from vitrail.errors import VitrailError
from vitrail.generation.beam import BeamOptions, beam_search
from vitrail.generation.decoding import TranslationDecoding
from vitrail.kernels.best_words import best_words, cpp, reference
from vitrail.layouts import TokenSequence
from vitrail.tasks.translate.decoding import beam_translations
from vitrail.tasks.translate.options import BeamFlags

NAMES = ["transformer", "transformer pre", "transformer marian"]
SOURCES = [[1, 2, 3, 4, 5], [6, 7], [8], [9, 10, 11], list(range(3, 20))]
ODD = {"dim": 36, "num_heads": 3, "hidden": 50, "vocab_size": 71}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [{}, ODD], ids=["even", "odd"])
def test_scores_are_those_of_the_plain_model(name, sizes):
    model = small(name, **sizes)
    fast = vitrail.optimize(model, "fp32")
    source, target = torch.tensor([[5, 6, 7, 0], [8, 9, 3, 2]]), torch.tensor([[1, 4, 6], [1, 2, 9]])
    layout = TokenSequence(4, lengths=torch.tensor([3, 4]))
    with torch.no_grad():
        want = model(source, target, layout)
    torch.testing.assert_close(fast(source, target, layout), want, atol=1e-5, rtol=1e-5)
    twin = copy.deepcopy(fast)
    del fast
    torch.testing.assert_close(twin(source, target, layout), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_hypotheses_are_those_of_the_plain_model(name):
    model = small(name)
    fast = vitrail.optimize(model, "fp32")
    for flags in (BeamFlags(beam=5), BeamFlags(beam=2, length_penalty=0.6, penalty="gnmt")):
        want = beam_translations(model, SOURCES, flags, 1, 0)
        found = beam_translations(fast, SOURCES, flags, 1, 0)
        for ours, theirs in zip(found, want, strict=True):
            assert [one.tokens for one in ours.hypotheses] == [one.tokens for one in theirs.hypotheses]
            assert ours.hypotheses[0].score == pytest.approx(theirs.hypotheses[0].score, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_exact_search_is_proved_by_both(name, monkeypatch):
    """Two tokens at most: all of them can be tried."""
    monkeypatch.setattr("vitrail.tasks.translate.decoding.most_new", lambda length: 2)
    model = small(name)
    found = [
        beam_translations(each, SOURCES[2:3], BeamFlags(beam=2), 1, 0, exact=True)[0]
        for each in (model, vitrail.optimize(model, "fp32"))
    ]
    assert all(one.exact for one in found)
    assert found[0].hypotheses[0].tokens == found[1].hypotheses[0].tokens


def test_a_text_is_the_same_alone_and_in_any_batch():
    model = small("transformer")
    for each in (model, vitrail.optimize(model, "int8")):
        together = beam_translations(each, SOURCES, BeamFlags(beam=3), 1, 0)
        alone = [beam_translations(each, [source], BeamFlags(beam=3), 1, 0)[0] for source in SOURCES]
        tokens = [[one.tokens for one in found.hypotheses] for found in together]
        assert tokens == [[one.tokens for one in found.hypotheses] for found in alone]


def test_options_of_each_text():
    model = small("transformer")
    each = [BeamOptions(2, most, (0,)) for most in (3, 7)]
    found = beam_search(TranslationDecoding(model, SOURCES[:2], 8), [[1], [1]], each)
    for options, source, result in zip(each, SOURCES[:2], found, strict=True):
        (alone,) = beam_search(TranslationDecoding(model, [source], 8), [[1]], options)
        assert [one.tokens for one in result.hypotheses] == [one.tokens for one in alone.hypotheses]


@pytest.mark.parametrize("words", [1, 15, 16, 37, 500])
def test_ties_are_broken_by_token_and_row(words):
    scores = torch.randint(0, 6, (7, words + 3), generator=torch.Generator().manual_seed(words)).float()
    scores[1, ::2], scores[2, :] = float("nan"), -torch.inf
    rows = scores[:, :words]  # with a stride of its own
    for counts, sums in (([7], [0.0, 1.0, 0.5, -2.0, 0.0, 1.0, 3.0]), ([1, 3, 0, 2, 1], [0.0] * 7)):
        for best in (1, 4, 10, 600):
            assert cpp.best_words(rows, sums, counts, best) == reference.best_words(rows, sums, counts, best)
        first, loop = 0, []
        for count in counts:
            every = [
                (-(sums[first + row] + float(value)), word, row)
                for row in range(count) for word, value in enumerate(rows[first + row]) if float(value) >= 0
            ]  # fmt: skip
            loop.append([(-total, word, row) for total, word, row in sorted(every)[:4]])
            first += count
        assert best_words(rows, sums, counts, 4) == loop


def test_invalid_calls_are_refused():
    fast = vitrail.optimize(small("transformer"), "fp32")
    assert fast.unconverted == {"encoder: runs in PyTorch": 2}
    with pytest.raises(VitrailError, match="own cache"):
        fast.decode(torch.tensor([[1]]), TokenSequence(1))
    with pytest.raises(VitrailError, match="positions for 4096"):
        fast.decoding([[1]], 5000)
    model = small("transformer")
    model.decoder.blocks[0].cross_mixer.register_forward_hook(lambda *given: None)
    with pytest.raises(VitrailError, match="hooks"):
        vitrail.optimize(model)
