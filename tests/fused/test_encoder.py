"""Optimized encoders of text: results of the model, without padding, for every head; refusals by name."""

import pytest
import torch
from small_models import relative
from small_texts import VOCABULARY, answer, small

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.encoder import texts_by_length
from vitrail.layouts import TokenSequence

every_encoder = pytest.mark.parametrize("name", ["bert", "bert masked", "bert classes", "bert vector", "text_encoder"])


@every_encoder
@torch.no_grad()
def test_results_are_those_of_the_model_in_any_batch(name):
    model = small(name)
    fast, ids = vitrail.optimize(model, "fp32"), torch.randint(0, VOCABULARY, (4, 9))
    for lengths in (None, torch.tensor([9, 3, 1, 3])):
        for got, want in zip(answer(fast, ids, lengths), answer(model, ids, lengths), strict=True):
            for row in range(4):
                end = 9 if lengths is None else int(lengths[row])
                mine, theirs = (x[row, :end] if x.ndim == 3 else x[row] for x in (got, want))
                assert relative(mine, theirs) <= 1e-5


@every_encoder
@torch.no_grad()
def test_bf16_is_near(name):
    model, ids = small(name), torch.randint(0, VOCABULARY, (2, 9))
    fast = vitrail.optimize(model, "bf16")
    assert fast.precision == "bf16" and fast.unconverted == {} and vitrail.optimize(fast) is fast
    for got, want in zip(answer(fast, ids), answer(model, ids), strict=True):
        assert got.dtype == torch.float32 and relative(got, want) < 0.05


@torch.no_grad()
def test_segments_are_read_and_the_model_is_not_changed():
    model, ids = small("bert vector"), torch.randint(0, VOCABULARY, (2, 6))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layout = TokenSequence(6, segments=torch.tensor([[0, 0, 1, 1, 1, 1]] * 2))
    fast = vitrail.optimize(model, "fp32")
    assert relative(fast(ids, layout), model(ids, layout)) <= 1e-5 < relative(fast(ids), model(ids, layout))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_has_no_native_form_is_refused_by_name():
    with pytest.raises(VitrailError, match="precision of an encoder of text 'int8'"):
        vitrail.optimize(small("bert"), "int8")
    with pytest.raises(VitrailError, match="has no optimized form: SharedBlock has no fused operation"):
        vitrail.optimize(small("albert"))
    model = small("bert")
    model.backbone.stages[0].blocks[1].channel_mixer.act = torch.nn.ReLU()
    with pytest.raises(VitrailError, match="its act is ReLU"):
        vitrail.optimize(model)
    model = small("bert")
    model.backbone.stages[0].blocks[0].norm1.register_forward_hook(print)
    with pytest.raises(VitrailError, match="norm1 has hooks"):
        vitrail.optimize(model)


def test_texts_are_listed_by_length():
    index, spans = texts_by_length(4, 3, torch.tensor([3, 1, 2, 1]))
    assert index is not None and index.tolist() == [3, 9, 6, 7, 0, 1, 2]
    assert [tuple(span) for span in spans] == [(0, 2, 1), (2, 1, 2), (4, 1, 3)]
