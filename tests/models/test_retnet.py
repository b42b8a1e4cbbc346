"""RetNets compute one function in three forms, and decode by a state."""

import pytest
import torch

from vitrail.generation.generate import generate
from vitrail.layouts import TokenSequence
from vitrail.models import create_model
from vitrail.parts.key_value_cache import KeyValueCache
from vitrail.parts.token_mixers.retention import (
    ChunkwiseRetention,
    ParallelRetention,
    RecurrentRetention,
    use_retention,
)

TEXT = {"dim": 32, "depth": 2, "num_heads": 4, "vocab_size": 50}
FORMS = [RecurrentRetention(), ChunkwiseRetention(4), ChunkwiseRetention(64)]


@pytest.mark.parametrize("form", FORMS, ids=["recurrent", "chunks of 4", "one chunk"])
@torch.no_grad()
def test_three_forms_of_the_language_model_agree(form):
    model, ids = create_model("retnet_1b3", **TEXT).eval().double(), torch.randint(0, 50, (2, 11))
    want = use_retention(model, ParallelRetention())(ids)
    torch.testing.assert_close(use_retention(model, form)(ids), want, rtol=1e-5, atol=1e-6)  # decays are fp32


@pytest.mark.parametrize("form", FORMS, ids=["recurrent", "chunks of 4", "one chunk"])
@torch.no_grad()
def test_three_forms_of_the_image_model_agree(form):
    model = create_model("retnet_tiny_patch16_224", dim=24, depth=2, num_heads=2, num_classes=5).eval().double()
    images = torch.randn(2, 3, 48, 80, dtype=torch.double)
    want = use_retention(model, ParallelRetention())(images)
    torch.testing.assert_close(use_retention(model, form)(images), want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_decoding_by_a_state_equals_the_whole_text():
    model, ids = create_model("retnet_1b3", **TEXT).eval(), torch.randint(0, 50, (2, 9))
    whole, cache, got = model(ids), KeyValueCache(9), []
    for start, length in ((0, 4), (4, 1), (5, 1), (6, 3)):
        layout = TokenSequence(length, start=start, cache=cache)
        got.append(model(ids[:, start : start + length], layout))
    torch.testing.assert_close(torch.cat(got, dim=1), whole, rtol=1e-4, atol=1e-5)
    assert {state.shape for state in cache.states.values()} == {(2, 4, 8, 16)}  # no length in it
    cache.select(torch.tensor([1]))
    assert {len(state) for state in cache.states.values()} == {1}


@torch.no_grad()
def test_generation_equals_growing_prefixes():
    model, ids = create_model("retnet_1b3", **TEXT).eval(), torch.randint(0, 50, (1, 3))
    want = ids
    for _ in range(5):
        want = torch.cat([want, model(want)[:, -1:].argmax(-1)], dim=1)
    got = generate(model, ids.tolist(), max_new=5)
    assert got[0] == want[0, -5:].tolist()
