"""Texts with the implementation that is faster here: results of the model, in any batch, for each verb."""

from typing import Any

import pytest
import torch

import vitrail
from vitrail.fused import ab_trial
from vitrail.fused.auto_optimize import InferenceRunner, SelectedModel
from vitrail.inference.embed import embed
from vitrail.models import create_model
from vitrail.native.build import refusal
from vitrail.serving.limits import Limits
from vitrail.serving.served_model import serve_model
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.padded_texts import PaddedTexts, TextAnswers, read_texts
from vitrail.text.learning import learn_framed

pytestmark = pytest.mark.skipif(refusal(torch.float32) is not None, reason="no C++ compiler")
WORDS = ["a", "warm", "and", "funny", "film", "that", "is", "dull", "in", "parts", ",", "a", "bore", "or", "a", "joy"]
TEXTS = [" ".join(WORDS[start : start + length]) for start in range(6) for length in (1, 4, 9)]
SIZES = {"dim": 32, "depth": 2, "num_heads": 2, "max_length": 24}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimized model is taken whenever it agrees, however fast it is."""
    monkeypatch.setattr(InferenceRunner, "_weigh", lambda *_: None)
    monkeypatch.setattr(ab_trial, "WORTH", 0.0)


@pytest.fixture(scope="module")
def vocabulary() -> Any:
    return learn_framed(TEXTS, 300, ("[CLS]", "[SEP]", "[MASK]"))


def built(vocabulary: Any, task: str, **more: Any) -> Any:
    torch.manual_seed(0)
    model: Any = create_model("all_minilm_l6_v2", **SIZES, vocab_size=len(vocabulary), **more).eval()
    model.task, model.inputs = task, vocabulary
    return model


def ids_of(vocabulary: Any, texts: list[str]) -> PaddedTexts:
    return PaddedTexts.of(vocabulary.encode(texts).ids, torch.device("cpu"))


@pytest.mark.usefixtures("eager")
def test_predictions_are_those_of_the_model_in_any_batch(vocabulary: Any) -> None:
    model = built(vocabulary, "sentiment", head="mean")
    told: list[SelectedModel] = []
    fast = vitrail.predict(model, TEXTS, batch=7, notify=told.append)
    assert told[0].name == "fast" and "in fp32 on the first 6 texts" in str(told[0])
    plain = vitrail.predict(model, TEXTS, batch=5, optimize=False)
    alone = [vitrail.predict(model, text)[0] for text in TEXTS]
    for one, other, single in zip(fast, plain, alone, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
        assert one.probability == pytest.approx(single.probability, abs=1e-5)
    half = vitrail.predict(model, TEXTS, precision="bf16", notify=told.append)
    assert told[1].precision == "bf16"
    assert max(abs(a.probability - b.probability) for a, b in zip(fast, half, strict=True)) < 2e-2


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("head", "pool"), [("vector", "auto"), ("mean", "auto"), ("mean", "first"), ("masked", "mean")]
)
def test_vectors_are_those_of_the_model(vocabulary: Any, head: str, pool: Any) -> None:
    model = built(vocabulary, "vector", head=head)
    many = embed(model, TEXTS, pool=pool, batch=6).vectors
    alone = [embed(model, text, pool=pool).vectors[0] for text in TEXTS[:4]]
    assert abs(many[:4] - alone).max() < 1e-5 * abs(many).max()


@pytest.mark.usefixtures("eager")
def test_a_server_takes_the_selection_for_all_requests(vocabulary: Any) -> None:
    served = serve_model("m", built(vocabulary, "sentiment", head="mean"), Limits(), batch=8)
    served.warm_up()
    assert served.form.startswith("optimized model: ")
    for predictor in (served.predictor, served.find({"top": 1})):
        assert predictor.runner.form is served.predictor.runner.form
        [result] = predictor.predict([(item, predictor.load(item)) for item in served.task.collect([TEXTS[2]])])
        assert predictor.view(result)["layers"] == 2  # maps are those of the plain model
        [plain] = vitrail.predict(served.model, TEXTS[2])
        assert result.probability == pytest.approx(plain.probability, abs=1e-5)


def test_recurrent_models_keep_their_form(vocabulary: Any) -> None:
    model: Any = create_model("bilstm_sst", dim=8, hidden=8, vocab_size=len(vocabulary)).eval()
    runner = InferenceRunner(model, None, kind=TextAnswers())
    with inference_mode_for(model):
        texts = ids_of(vocabulary, TEXTS)
        torch.testing.assert_close(runner(texts), read_texts(model, texts))
    assert str(runner.form) == "plain model in fp32: SequenceModel has no other"


def test_few_texts_are_computed_as_they_are(vocabulary: Any) -> None:
    model, told = built(vocabulary, "sentiment", head="mean"), list[SelectedModel]()
    vitrail.predict(model, TEXTS[:3], notify=told.append)
    assert str(told[0]).endswith("an optimized model does not pay off for so few texts")


def test_a_batch_is_cut_like_a_tensor(vocabulary: Any) -> None:
    texts = ids_of(vocabulary, TEXTS)
    assert len(texts) == 18 and [len(part) for part in texts.split(4)] == [4, 4, 4, 4, 2]
    assert texts[3:5].lengths.tolist() == texts.lengths[3:5].tolist()
    assert texts.shape == (18, 16 if texts.ids.shape[1] <= 16 else 32)
    assert TextAnswers().turn(texts) == 512 // texts.ids.shape[1]
