"""Traces of texts: merges against the tokenizer, the tree against the search, the lens against the answer."""

from itertools import pairwise

import pytest
import torch

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.parts.attend import Attend
from vitrail.tasks.translate.options import BeamFlags
from vitrail.tasks.translate.translator import Translator
from vitrail.text.learning import learn_vocabulary
from vitrail.trace.arrays import unpack
from vitrail.trace.merges import replay
from vitrail.trace.page import render
from vitrail.trace.text_trace import trace_text
from vitrail.weights.folder import save_model

LINES = ["the lower dog runs", "a dog runs in the snow", "the lowest newer snow is lower"] * 6
SIZES = {"dim": 24, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def vocabulary():
    return learn_vocabulary(LINES, size=300)


def built(name, vocabulary, **more):
    torch.manual_seed(0)
    model = create_model(name, **{**SIZES, "vocab_size": len(vocabulary), **more}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else None
    model.inputs = vocabulary
    return model


@pytest.fixture(scope="module")
def translated(vocabulary):
    model = built("transformer_base_wmt_en_de", vocabulary, hidden=48)
    model.task = "translate"
    return model, trace_text(model, "the dog runs lower")


@pytest.mark.parametrize("text", ["the lower dog", "newest snowdog é 7", " "])
def test_merges_end_in_the_tokens_of_the_vocabulary(vocabulary, text):
    words = replay(vocabulary, text)
    tokens = [token for word in words for token in word[-1].tokens]
    assert [vocabulary.id_of(token) for token in tokens] == list(vocabulary.encode([text]).ids[0])
    for word in words:
        assert len({"".join(step.tokens) for step in word}) == 1
        assert all(later.rank != earlier.rank for earlier, later in pairwise(word))


def test_tree_is_the_search(translated):
    model, trace = translated
    [frame] = [frame for frame in trace.frames if frame.title == "Beam search"]
    nodes = frame.views[0]["nodes"]
    assert all(nodes[depth - 1][node["parent"]]["kept"] for depth, step in enumerate(nodes) if depth for node in step)
    path = [node for step in nodes for node in step if node["best"]]
    [result] = Translator(model, BeamFlags(beam=4))(["the dog runs lower"])
    shown = [model.inputs.decode([token], special=True) or "·" for token in result.tokens]
    assert [node["token"] for node in path[1:]] == shown
    assert f"→ {result.score:.4f}" in frame.formulas[0]


def test_attention_of_a_translation_is_that_of_the_pass(translated):
    _, trace = translated
    matrices = {frame.path: view for frame in trace.frames for view in frame.views if view["kind"] == "matrix"}
    assert sum("cross_mixer" in path for path in matrices) == 2
    for call in trace.calls.walk():
        if isinstance(call.module, Attend):
            q, k, _, bias = call.module.operands(*call.args)
            view = matrices[call.path.removesuffix(".attend")]
            assert torch.equal(unpack(view["values"])[0], call.module.maps(q, k, bias)[0])
            assert [len(view["row_names"]), len(view["column_names"])] == view["values"]["shape"][-2:]
    assert sum(frame.parameters for frame in trace.frames) == sum(each.numel() for each in translated[0].parameters())
    assert "Beam search" in render(trace)


def test_last_layer_of_the_logit_lens_is_the_next_token(vocabulary):
    model = built("text_decoder_tiny", vocabulary)
    trace = trace_text(model, "the dog runs")
    answer = trace.calls.output[0, -1]
    torch.testing.assert_close(unpack(trace.lens["logits"])[-1], answer.topk(5).values)
    assert len(trace.lens["layers"]) == 2


def test_classifier_of_texts(vocabulary, tmp_path, capsys):
    model = built("text_encoder_tiny", vocabulary)
    model.task = "sentiment"
    save_model(model, tmp_path / "model")
    assert main(["trace", str(tmp_path / "model"), "the dog runs", "--text"]) == 0
    printed = capsys.readouterr().out
    assert "Byte pairs are merged" in printed and "logit lens" in printed


def test_mistakes(vocabulary):
    model = built("text_decoder_tiny", vocabulary)
    with pytest.raises(VitrailError, match="1 to 64"):
        trace_text(model, "the dog " * 60)
    model.inputs = None
    with pytest.raises(VitrailError, match="vocabulary"):
        trace_text(model, "the dog")
