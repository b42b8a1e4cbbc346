"""Contract of every text architecture, whatever its parts."""

import itertools

import pytest
import torch
from small_models import relative
from small_texts import SMALL, VOCABULARY, answer, small

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.models import FAMILIES, create_model, family_of
from vitrail.models.published import PUBLISHED

every_text = pytest.mark.parametrize("name", SMALL)


def test_there_is_a_small_model_of_every_text_family():
    texts = {
        family
        for family in FAMILIES
        if any(p.family == family and p.tokens and p.task not in ("points", "parts") for p in PUBLISHED.values())
    }
    assert {family_of(variant) for variant, _ in SMALL.values()} == texts


@every_text
def test_padding_does_not_change_the_output_in_any_batch(name):
    model, texts = small(name), [torch.randint(0, VOCABULARY, (1, n)) for n in (6, 1, 4)]
    alone = [answer(model, ids) for ids in texts]
    for size in (1, 2, 3):
        for chosen in itertools.permutations(range(3), size):
            lengths = torch.tensor([texts[i].shape[1] for i in chosen])
            ids = torch.full((size, 7), VOCABULARY - 1)
            for row, i in enumerate(chosen):
                ids[row, : lengths[row]] = texts[i]
            for got, want in zip(
                answer(model, ids, lengths), zip(*(alone[i] for i in chosen), strict=True), strict=True
            ):
                for row, single in enumerate(want):
                    mine = got[row : row + 1, : lengths[row]] if got.ndim == 3 else got[row : row + 1]
                    assert relative(mine, single) <= 1e-5


@every_text
def test_every_weight_learns(name):
    model, ids = small(name).train(), torch.randint(0, VOCABULARY, (3, 8))
    layout = TokenSequence(8, segments=torch.randint(0, 2, (3, 8)))
    out = model(ids, ids, layout, layout) if hasattr(model, "encode") else model(ids, layout)
    torch.stack([part.sin().sum() for part in (out if isinstance(out, tuple) else [out])]).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@every_text
def test_dropout_acts_in_training_alone(name):
    if not hasattr(small(name).config, "dropout"):
        pytest.skip("published without dropout")
    model, ids = small(name, dropout=0.3), torch.randint(0, VOCABULARY, (2, 6))
    assert all(map(torch.equal, answer(model, ids), answer(model, ids)))
    model.train()
    assert not all(map(torch.equal, answer(model, ids), answer(model, ids)))
    still = small(name, dropout=0.0)
    want = answer(still, ids)
    for got, one in zip(answer(still.train(), ids), want, strict=True):
        torch.testing.assert_close(got, one)


@every_text
def test_half_precision(name):
    model, ids = small(name), torch.randint(0, VOCABULARY, (2, 6))
    want = answer(model, ids)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(relative(got.float(), one) < 0.1 for got, one in zip(answer(model, ids), want, strict=True))


@pytest.mark.parametrize("name", ["gpt", "gpt2", "transformer", "transformer pre", "transformer marian"])
def test_causal_models_do_not_read_later_tokens(name):
    model, ids = small(name), torch.randint(0, VOCABULARY, (1, 8))
    other = ids.clone()
    other[0, 5:] = (ids[0, 5:] + 1) % VOCABULARY
    if hasattr(model, "encode"):
        source = torch.randint(0, VOCABULARY, (1, 4))
        got, want = model(source, other), model(source, ids)
    else:
        got, want = model(other), model(ids)
    assert relative(got[:, :5], want[:, :5]) <= 1e-6 < relative(got[:, 5:], want[:, 5:])


@pytest.mark.parametrize(("name", "longest"), [("bert", 20), ("gpt2", 20)])
def test_longer_input_is_refused_by_name(name, longest):
    model = small(name)
    answer(model, torch.zeros(1, longest, dtype=torch.long))
    with pytest.raises(VitrailError, match=f"{longest + 1} tokens, and this model has positions for {longest}"):
        answer(model, torch.zeros(1, longest + 1, dtype=torch.long))


@every_text
def test_an_id_outside_the_vocabulary_is_refused_by_name(name):
    for wrong in (VOCABULARY, -1):
        with pytest.raises(VitrailError, match=f"Token id {wrong} is outside the vocabulary of {VOCABULARY}"):
            answer(small(name), torch.tensor([[0, wrong]]))


def test_unknown_parts_are_reported_with_the_valid_ones():
    with pytest.raises(VitrailError, match=r"Unknown head 'masks'. Did you mean: masked"):
        create_model("bert_tiny", head="masks")
    with pytest.raises(VitrailError, match=r"Unknown norm 'last'. Valid: post, pre"):
        create_model("transformer_tiny_multi30k", norm="last")
    with pytest.raises(VitrailError, match="Unknown field of gpt2 'image_size'"):
        create_model("gpt2", image_size=32)
