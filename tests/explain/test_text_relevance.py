"""Words that decided: occlusion as `predict --explain`, gradients against differences, rollout against a product."""

import re

import pytest
import small_texts
import torch

import vitrail
from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.explain.text_relevance import explain_text, gradients, rollout_of
from vitrail.explain.text_report import text_page
from vitrail.explain.text_targets import TextTarget, find_targets
from vitrail.tasks.sentiment.word_effects import log_odds, word_effects
from vitrail.tasks.text_maps import self_attention
from vitrail.text.learning import learn_framed, learn_vocabulary

LINES = ["the cat sat on the mat", "a dog ran"]
PLAIN = learn_vocabulary(LINES, size=270)
FRAMED = learn_framed(LINES, 270, ("[CLS]", "[SEP]", "[MASK]"))
TEXT = "the cat [MASK] on a mat"
KINDS = {
    "bert": "pretrain",
    "bert masked": "masked",
    "bert classes": "sentiment",
    "bert vector": "vector",
    "bilstm": "sentiment",
    "gpt2": "language",
    "reformer": "language",
    "text_encoder": "sentiment",
}


def model_of(name):
    torch.manual_seed(0)
    model = small_texts.small(name, vocab_size=270, **({"max_length": 40} if name.startswith(("bert", "gpt")) else {}))
    model.inputs, model.task = FRAMED if name.startswith("bert") else PLAIN, KINDS[name]
    return model


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_is_explained(name):
    model = model_of(name)
    text = TEXT if "MASK" in TEXT and KINDS[name] in ("masked", "pretrain") else "the cat sat on a mat"
    [found] = explain_text(model, text)
    assert len(found.words) == 6 and sum(word.effect is not None for word in found.words) == 6 - text.count("[MASK]")
    assert (found.gradient is None) == (KINDS[name] == "vector")
    if found.gradient is not None:
        assert found.gradient.shape == (len(found.tokens),) and found.gradient.abs().max() > 0
    has_maps = name not in ("bilstm", "reformer")
    assert (found.maps is not None) == has_maps
    if has_maps and found.rollout is not None:
        assert float(found.rollout.sum()) == pytest.approx(1, abs=1e-4)
    page = text_page(model, [found], "vitrail explain")
    assert ("Every head of every layer" in page) == has_maps and not re.search(r"https?://(?!www\.w3\.org)", page)


def test_effects_are_those_of_predict():
    model = model_of("bert classes")
    assert explain_text(model, "a dog ran")[0].words == word_effects(model, "a dog ran", 40)


def test_a_gradient_is_the_change_of_the_score_by_a_token():
    model = model_of("bert classes").double()
    ids = list(FRAMED.encode(["a dog ran"]).ids[0])
    target = TextTarget("", lambda out, ids, lengths: log_odds(out, 1))
    got, reading = gradients(model, ids, target)
    assert float(reading[0]) == pytest.approx(1)  # the pooler reads [CLS]
    words, scale = model.backbone.embedding.words, torch.ones(len(ids), 1, dtype=torch.double)
    hook = words.register_forward_hook(lambda module, inputs, output: output * scale)
    scores = []
    for step in (1e-5, -1e-5):
        scale[2] = 1 + step
        scores.append(float(log_odds(model(torch.tensor([ids])), 1).detach()))
    hook.remove()
    assert float(got[2]) == pytest.approx((scores[0] - scores[1]) / 2e-5, rel=1e-4)


def test_rollout_is_the_product_of_the_layers():
    model = model_of("text_encoder")
    maps, reading = self_attention(model, [5, 6, 7, 8]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    product = torch.eye(4)
    for layer in maps.mean(dim=1):
        product = (layer + torch.eye(4)) / 2 @ product
    torch.testing.assert_close(rollout_of(maps, reading), reading @ product)


def test_a_text_without_a_mask_and_another_task_are_refused():
    with pytest.raises(VitrailError, match=r"fills masked words, and the text has no \[MASK\]"):
        explain_text(model_of("bert masked"), "a dog ran")
    model = model_of("gpt2")
    model.task = "complete"
    with pytest.raises(VitrailError, match="model of the task complete"):
        find_targets(model, torch.zeros(1, 1, 270), [0])


def test_explain_marks_words_and_draws_every_head(tmp_path, capsys):
    model = model_of("bert classes")
    vitrail.save_model(model, tmp_path / "films", labels=["bad", "fair", "good"])
    out = tmp_path / "page"
    assert main(["explain", str(tmp_path / "films"), "--text", "a dog <b> ran", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"a dog <b> ran: (bad|fair|good) \d", shown) and re.search(r"\[\w+ [+-]\d", shown)
    page = (out / "index.html").read_text()
    assert "&lt;b&gt;" in page and "<b>" not in page and "Gradient of each token" in page
    assert main(["explain", str(tmp_path / "films"), "--text", "a", "--head", "1", "--out", str(out)]) == 2
    assert "every method, layer and head is on the page" in capsys.readouterr().err
    assert main(["explain", str(tmp_path / "films"), "--text", " ", "--out", str(out)]) == 3
