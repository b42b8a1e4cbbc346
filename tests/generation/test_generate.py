"""Generation: token for token as transformers, the same alone and in any batch, draws without a state."""

import itertools

import numpy as np
import pytest
import torch
from small_texts import VOCABULARY, small

from vitrail.errors import VitrailError
from vitrail.generation.decoding import LanguageDecoding, TranslationDecoding
from vitrail.generation.generate import generate, stream
from vitrail.generation.sampling import Greedy, Sample, restrict
from vitrail.weights.formats import write_as

PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 5, 8, 9, 7, 9, 3]]


def as_transformers(model):
    """Return Hugging Face's GPT or GPT-2 with the weights of ours."""
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 20}
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    family = "gpt" if model.variant == "openai_gpt" else "gpt2"
    kind = "OpenAIGPT" if family == "gpt" else "GPT2"
    config = getattr(transformers, f"{kind}Config")(**sizes, **special)
    theirs = getattr(transformers, f"{kind}LMHeadModel")(config).eval()
    state = write_as("huggingface", family, model.state_dict(), model.config)
    theirs.load_state_dict(state, strict=False)
    theirs.tie_weights()
    return theirs


@pytest.mark.parametrize("name", ["gpt", "gpt2"])
def test_greedy_equals_transformers_token_for_token(name):
    model = small(name)
    theirs = as_transformers(model)
    for prompt in PROMPTS:
        for stop in ((), (0,), tuple(range(0, 50, 7))):
            want = theirs.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=10, do_sample=False, eos_token_id=list(stop) or 10**6,
            )  # fmt: skip
            assert generate(model, [prompt], 10, stop=stop)[0] == want[0, len(prompt) :].tolist()


@pytest.mark.parametrize("choose", [Greedy(), Sample(top_k=20, seed=3), Sample(1.5, top_p=0.9, seed=4)], ids=str)
@pytest.mark.parametrize("stop", [(), tuple(range(0, 50, 3))], ids=["whole", "stops"])
def test_a_text_is_the_same_alone_and_in_any_batch(choose, stop):
    model = small("gpt2")
    alone = [generate(model, [prompt], 8, choose, stop)[0] for prompt in PROMPTS]
    for size in (2, 4):
        for chosen in itertools.permutations(range(4), size):
            assert generate(model, [PROMPTS[i] for i in chosen], 8, choose, stop) == [alone[i] for i in chosen]
    assert [list(stream(model, prompt, 8, choose, stop)) for prompt in PROMPTS] == alone


def test_samples_differ_and_the_first_is_the_plain_one():
    model, choose = small("gpt2"), Sample(seed=1)
    many = generate(model, [[3], [4, 5]], 8, choose, samples=3)
    assert len(set(map(tuple, many[:3]))) == len(set(map(tuple, many[3:]))) == 3
    assert many[0::3] == generate(model, [[3], [4, 5]], 8, choose)
    assert generate(model, [[3]], 8, Sample(seed=2)) != generate(model, [[3]], 8, choose)


def test_draws_follow_the_distribution():
    log_probs = torch.tensor([[0.1, 0.2, 0.0, 0.7]]).log().expand(20_000, 4)
    drawn = Sample(seed=5)(log_probs, 3, np.arange(20_000))
    torch.testing.assert_close(
        drawn.bincount(minlength=4) / 20_000, torch.tensor([0.1, 0.2, 0.0, 0.7]), atol=0.01, rtol=0
    )
    kept = Sample(0.5, top_k=2, seed=5)(log_probs, 3, np.arange(20_000))
    torch.testing.assert_close(kept.bincount(minlength=4) / 20_000, torch.tensor([0, 4, 0, 49]) / 53, atol=0.01, rtol=0)


@pytest.mark.parametrize(("k", "p"), [(1, 1.0), (7, 1.0), (0, 0.3), (0, 0.95), (9, 0.8), (0, 1e-9)])
def test_the_kept_tokens_are_transformers(k, p):
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(5, 40)
    want = logits
    if k:
        want = process.TopKLogitsWarper(k)(None, want)
    if p < 1:
        want = process.TopPLogitsWarper(p)(None, want)
    assert torch.equal(restrict(logits, k, p), want)


def test_of_equal_tokens_the_lowest_id_is_chosen_and_all_of_them_are_kept():
    assert Greedy()(torch.tensor([[1.0, 5.0, 5.0, 5.0]]), 0, np.zeros(1, int)).tolist() == [1]
    assert restrict(torch.tensor([[5.0, 1.0, 5.0, 5.0]]), top_k=1).isfinite().tolist() == [[True, False, True, True]]


@pytest.mark.parametrize("name", ["transformer", "transformer pre", "transformer marian"])
def test_decoding_step_by_step_equals_the_whole(name):
    model, sources = small(name), [[1, 2, 3, 4, 5], [6, 7]]
    target = torch.randint(0, VOCABULARY, (2, 6))
    decoding = TranslationDecoding(model, sources, 6)
    with torch.no_grad():
        steps = torch.stack([decoding.feed(target[:, i : i + 1]) for i in range(6)], dim=1)
        whole = [model(torch.tensor([s]), target[i : i + 1])[0].log_softmax(-1) for i, s in enumerate(sources)]
    torch.testing.assert_close(steps, torch.stack(whole), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: generate(model, [[1], []], 3), "Text 1 has no token"),
        (lambda model: generate(model, [[1] * 15], 7), "21 tokens, and gpt2 has positions for 20"),
        (lambda model: generate(model, [[1]], 0), "max_new needs a whole number from 1 up, got 0"),
        (lambda model: generate(model, [[VOCABULARY]], 2), f"Token id {VOCABULARY} is outside"),
        (lambda model: Sample(temperature=0.0), "temperature needs a number above 0"),
        (lambda model: Sample(top_p=0.0), "top_p needs a number above 0"),
        (lambda model: Sample(top_k=-1), "top_k needs a whole number from 0"),
    ],
)
def test_invalid_input_is_refused(call, message):
    with pytest.raises(VitrailError, match=message):
        call(small("gpt2"))


def test_the_last_position_is_used():
    assert len(generate(small("gpt2"), [[1] * 15], 6)[0]) == 6
    assert LanguageDecoding(small("gpt2"), 1, 20).feed(torch.ones(1, 20, dtype=torch.long)).shape == (1, VOCABULARY)
