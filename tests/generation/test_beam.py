"""Beam search: against enumeration, against transformers, ties, batches, certificates."""

import itertools

import pytest
import torch
from small_texts import VOCABULARY, small
from test_generate import as_transformers

from vitrail.errors import VitrailError
from vitrail.generation.beam import BeamOptions, beam_search
from vitrail.generation.decoding import LanguageDecoding, TranslationDecoding
from vitrail.generation.exact import exact_search
from vitrail.generation.length_penalty import GNMT, NoPenalty, Power, upper_bound

PENALTIES = [NoPenalty(), Power(0.6), Power(1.0), Power(-0.5), GNMT(0.6)]


class Table:
    """Decoding by a table: the next token depends on the last one alone. Counts its inputs."""

    device = torch.device("cpu")

    def __init__(self, log_probs: torch.Tensor, rows: int = 1):
        self.log_probs, self.rows = log_probs, rows

    def feed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.log_probs[ids[:, -1]]

    def select(self, rows: torch.Tensor) -> None:
        self.rows = len(rows)

    def next_token(self, prefixes):
        return self.feed(torch.tensor([[0, *tokens] for tokens in prefixes]))


def every_text(table: Table, o: BeamOptions):
    """Enumerate all finished texts from start token 0."""
    words = range(len(table.log_probs))
    for n in range(1, o.max_new + 1):
        for text in itertools.product(words, repeat=n):
            if any(t in o.stop for t in text[:-1]) or (text[-1] not in o.stop and n < o.max_new):
                continue
            pairs = zip((0, *text), text, strict=False)
            yield text, sum(float(table.log_probs[a, b].double()) for a, b in pairs) / o.penalty.divisor(n)


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_exact_search_is_enumeration(penalty):
    for seed in range(8):
        table = Table((torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)) * 2).log_softmax(-1))
        o = BeamOptions(beam=1, max_new=5, stop=(4,), penalty=penalty)
        best = min(every_text(table, o), key=lambda one: (-one[1], one[0]))
        (start,) = beam_search(table, [[0]], o)
        found = exact_search(table.next_token, start, o)
        assert found.certified and found.exact and found.hypotheses[0].tokens == best[0]
        assert found.hypotheses[0].score == pytest.approx(best[1], abs=1e-9)


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_a_wide_beam_is_enumeration_too(penalty):
    table = Table((torch.randn(4, 4) * 2).log_softmax(-1))
    o = BeamOptions(beam=300, max_new=4, stop=(3,), penalty=penalty)
    (found,) = beam_search(table, [[0]], o)
    want = sorted(every_text(table, o), key=lambda one: (-one[1], one[0]))
    assert [one.tokens for one in found.hypotheses] == [text for text, _ in want][:300] and found.certified


def test_the_certificate_bounds_every_text_that_continues():
    for seed in range(20):
        table = Table((torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)) * 3).log_softmax(-1))
        o = BeamOptions(beam=2, max_new=6, stop=(5,), penalty=Power(1.0))
        (found,) = beam_search(table, [[0]], o)
        assert found.bound <= found.hypotheses[-1].score <= found.hypotheses[0].score and found.certified
    assert upper_bound(Power(1.0), -3.0, 2, 6) == -0.5 and upper_bound(Power(-1.0), -3.0, 2, 6) == -9.0


def test_ties_are_broken_by_token():
    table = Table(torch.full((4, 4), 0.25).log())
    (found,) = beam_search(table, [[0]], BeamOptions(beam=2, max_new=3, stop=(3,), penalty=NoPenalty()))
    assert [one.tokens for one in found.hypotheses] == [(0, 0, 0), (1, 0, 0)]
    again = beam_search(
        Table(table.log_probs, 3), [[0]] * 3, BeamOptions(beam=2, max_new=3, stop=(3,), penalty=NoPenalty())
    )
    assert [one.hypotheses for one in again] == [found.hypotheses] * 3


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_gpt2_equals_transformers(alpha, beam):
    model = small("gpt2")
    theirs = as_transformers(model)
    for prompt, stop in itertools.product([[3, 1, 4], [7], [2, 9, 9, 1]], [(0,), (0, 5, 11, 17, 30, 41)]):
        o = BeamOptions(beam=beam, max_new=9, stop=stop, penalty=Power(alpha))
        (found,) = beam_search(LanguageDecoding(model, 1, len(prompt) + 9), [prompt], o)
        want = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=9,
            num_beams=beam, num_return_sequences=beam, early_stopping="never", length_penalty=alpha, do_sample=False,
            eos_token_id=list(stop), return_dict_in_generate=True, output_scores=True, pad_token_id=VOCABULARY - 1,
        )  # fmt: skip
        for one, row in zip(found.hypotheses, want.sequences[:, len(prompt) :].tolist(), strict=True):
            assert list(one.tokens) == row[: len(one.tokens)] and set(row[len(one.tokens) :]) <= {VOCABULARY - 1}
        if beam > 1:
            assert [one.score for one in found.hypotheses] == pytest.approx(want.sequences_scores.tolist(), abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_first_finished_texts_are_those_of_transformers(alpha):
    model = small("gpt2")
    theirs, stop = as_transformers(model), (0, 5, 11, 17, 30, 41)
    for prompt in ([3, 1, 4], [7], [2, 9, 9, 1]):
        o = BeamOptions(beam=3, max_new=9, stop=stop, penalty=Power(alpha), first=True)
        (found,) = beam_search(LanguageDecoding(model, 1, len(prompt) + 9), [prompt], o)
        want = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=9,
            num_beams=3, num_return_sequences=3, early_stopping=True, length_penalty=alpha, do_sample=False,
            eos_token_id=list(stop), pad_token_id=VOCABULARY - 1,
        )  # fmt: skip
        for one, row in zip(found.hypotheses, want[:, len(prompt) :].tolist(), strict=True):
            assert list(one.tokens) == row[: len(one.tokens)] and set(row[len(one.tokens) :]) <= {VOCABULARY - 1}


@pytest.mark.parametrize("name", ["transformer", "transformer pre"])
def test_a_translation_is_the_same_alone_and_in_any_batch(name):
    model, sources = small(name), [[1, 2, 3, 4, 5], [6, 7], [8], [9, 10, 11]]
    o = BeamOptions(beam=3, max_new=8, stop=tuple(range(0, 50, 9)))
    alone = [beam_search(TranslationDecoding(model, [s], 9), [[1]], o)[0] for s in sources]
    for chosen in itertools.permutations(range(4), 3):
        found = beam_search(TranslationDecoding(model, [sources[i] for i in chosen], 9), [[1]] * 3, o)
        for got, i in zip(found, chosen, strict=True):
            assert [one.tokens for one in got.hypotheses] == [one.tokens for one in alone[i].hypotheses]
            assert [one.score for one in got.hypotheses] == pytest.approx([one.score for one in alone[i].hypotheses])


def test_a_text_without_an_end_is_cut_off_and_returned():
    table = Table(torch.tensor([[0.0, -50.0, -99.0]] * 3).log_softmax(-1))
    (found,) = beam_search(table, [[0]], BeamOptions(beam=1, max_new=4, stop=(2,)))
    assert found.hypotheses[0].tokens == (0, 0, 0, 0)


def test_the_limit_of_exact_search_leaves_a_bound():
    table = Table(torch.randn(6, 6).log_softmax(-1))
    o = BeamOptions(beam=1, max_new=12, stop=(5,), penalty=Power(1.0))
    (start,) = beam_search(table, [[0]], o)
    found = exact_search(table.next_token, start, o, limit=1)
    assert found.hypotheses[0].score >= start.hypotheses[0].score and found.bound > -torch.inf
    assert not found.exact and not found.certified


def test_exact_search_is_exact_only_with_a_whole_proof_and_tells_its_progress():
    table = Table((torch.randn(6, 6, generator=torch.Generator().manual_seed(0)) * 2).log_softmax(-1))
    o, told = BeamOptions(beam=1, max_new=12, stop=(5,), penalty=Power(1.0)), []
    (start,) = beam_search(table, [[0]], o)
    proved = exact_search(table.next_token, start, o, progress=told.append)
    assert proved.exact and told == list(range(1, len(told) + 1)) and len(told) > 1
    assert exact_search(table.next_token, start, o, limit=len(told)).exact
    for limit in range(len(told)):
        assert not exact_search(table.next_token, start, o, limit=limit).exact


def test_invalid_options_are_refused():
    for wrong in ({"beam": 0}, {"max_new": 0}):
        with pytest.raises(VitrailError, match="whole numbers from 1 up"):
            BeamOptions(**{"stop": (1,), **wrong})
    with pytest.raises(VitrailError, match="needs the id of an end token"):
        BeamOptions()
    with pytest.raises(VitrailError, match="prompts of one length"):
        beam_search(Table(torch.zeros(3, 3)), [[0], [0, 1]], BeamOptions(stop=(2,)))
