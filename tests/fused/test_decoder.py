"""Native decoding against the plain model, token for token; weights of fewer bits against their decoded matrices."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from small_texts import VOCABULARY, small

import vitrail
from vitrail.edits.quantize import quantizable_layers, quantize_weights, with_dense_weights
from vitrail.errors import VitrailError
from vitrail.generation.decoding import LanguageDecoding
from vitrail.generation.generate import generate, stream
from vitrail.generation.sampling import Sample
from vitrail.layouts import TokenSequence
from vitrail.parts.quantized_linear import CodebookLinear, Int8Linear, absmax

DECODERS = ["gpt", "gpt2", "text_decoder"]
ODD = {"dim": 36, "num_heads": 3, "mlp_ratio": 2.1, "vocab_size": 71}
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6], [5], [3, 5, 8, 9, 7, 9, 3]]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("sizes", [{}, ODD], ids=["even", "odd"])
def test_logits_and_tokens_are_those_of_the_plain_model(name, sizes):
    model = small(name, **sizes)
    fast = vitrail.optimize(model, "fp32")
    with torch.no_grad():
        want, features = model(IDS), model.features(IDS).tokens
    torch.testing.assert_close(fast(IDS), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast.features(IDS).tokens, features, atol=1e-5, rtol=1e-5)
    for choose in (None, Sample(1.3, top_k=20, seed=4)):
        want = generate(model, PROMPTS, 12, choose, stop=(7,), samples=2)
        assert generate(fast, PROMPTS, 12, choose, stop=(7,), samples=2) == want
    assert list(stream(fast, PROMPTS[0], 12)) == generate(model, PROMPTS[:1], 12)[0]


def test_rows_are_reordered_without_a_copy_of_their_keys():
    torch.manual_seed(0)
    model = small("gpt2")
    fast, plain = vitrail.optimize(model, "fp32").decoding(2, 20), LanguageDecoding(model, 2, 20)
    ids, generator = IDS[:, :3], torch.Generator().manual_seed(1)
    with torch.no_grad():
        for rows in (2, 5, 5, 3, 6, 1, 4):
            torch.testing.assert_close(fast.feed(ids), plain.feed(ids), atol=1e-5, rtol=1e-5)
            chosen = torch.randint(0, fast.rows, (rows,), generator=generator)
            fast.select(chosen), plain.select(chosen)
            ids = torch.randint(0, VOCABULARY, (rows, 1), generator=generator)


def test_a_row_has_the_same_scores_to_the_last_bit_in_any_batch():
    for precision in ("fp32", "bf16", "int8", "codebook"):
        fast = vitrail.optimize(small("gpt2"), precision)
        many = torch.randint(0, VOCABULARY, (9, 6))
        alone = torch.cat([fast(row[None]) for row in many])
        assert torch.equal(fast(many), alone), precision


def rounded(model, kind):
    """Return the model with the decoded weights of a format in every linear layer; its head alone is plain."""
    edited = copy.deepcopy(model)
    quantize_weights(edited, dict.fromkeys(quantizable_layers(edited, 1), kind.name))
    table = kind(model.table.shape[1], model.table.shape[0], bias=False)
    table.encode(model.table, absmax)
    return edited, table.weight


@pytest.mark.parametrize(
    ("precision", "kind", "near"), [("int8", Int8Linear, 1e-3), ("codebook", CodebookLinear, 0.03)]
)
def test_fewer_bits_are_those_of_the_stored_formats(precision, kind, near):
    for name in DECODERS:
        model = small(name, **ODD)
        edited, table = rounded(model, kind)
        with torch.no_grad():
            want = edited.features(IDS).tokens @ table.T
        fast = vitrail.optimize(model, precision)
        # A codebook's 16 values are rounded to eight bits for integer dot products.
        torch.testing.assert_close(fast(IDS), want, atol=near, rtol=near)
        torch.testing.assert_close(vitrail.optimize(edited, precision)(IDS), fast(IDS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "int4", "codebook"])
def test_stored_codes_are_kept(kind):
    model = small("gpt2", dim=80, num_heads=4)
    quantize_weights(model, dict.fromkeys(quantizable_layers(model, 1), kind))
    with torch.no_grad():
        want = model(IDS)
    torch.testing.assert_close(vitrail.optimize(model, "fp32")(IDS), want, atol=0.02, rtol=0.02)
    dense = vitrail.optimize(with_dense_weights(model), "fp32")
    torch.testing.assert_close(dense(IDS), want, atol=1e-5, rtol=1e-5)
    assert vitrail.optimize(model, "fp32").program.bytes < 0.8 * dense.program.bytes


def test_bf16_rounds_weights_alone():
    model = small("gpt2")
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for part in rounded.modules():
            if isinstance(part, torch.nn.Linear):
                part.weight.copy_(part.weight.bfloat16())
        want = rounded.features(IDS).tokens @ model.table.bfloat16().float().T
    torch.testing.assert_close(vitrail.optimize(model, "bf16")(IDS), want, atol=1e-5, rtol=1e-5)


def test_copies_are_independent_of_the_original():
    model = small("gpt2")
    fast = vitrail.optimize(model, "int8")
    want, twins = fast(IDS), [copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    del fast
    assert all(torch.equal(twin(IDS), want) for twin in twins)
    with pytest.raises(VitrailError, match="an optimized"):
        vitrail.save_model(twins[0], "nowhere")


def test_padding_on_the_right_changes_nothing():
    fast = vitrail.optimize(small("text_decoder"), "fp32")
    padded = torch.nn.functional.pad(IDS, (0, 3), value=8)
    layout = TokenSequence(8, lengths=torch.tensor([5, 5]))
    torch.testing.assert_close(fast(padded, layout)[:, :5], fast(IDS), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["retnet", "pixel_gpt"])
def test_other_models_are_refused_by_reason(name):
    with pytest.raises(VitrailError, match="has no optimized form: "):
        vitrail.optimize(small(name))


def test_bad_input_is_refused():
    model = small("gpt2")
    fast = vitrail.optimize(model, "fp32")
    with pytest.raises(VitrailError, match="Token id 50 is outside the vocabulary of 50 words"):
        fast(torch.tensor([[1, 50]]))
    with pytest.raises(VitrailError, match="positions for 20"):
        generate(fast, [[1] * 10], 12)
    with pytest.raises(VitrailError, match="precision 'int3'"):
        vitrail.optimize(model, "int3")
    with pytest.raises(VitrailError, match="optimized in fp32 already"):
        vitrail.optimize(fast, "int8")
    with pytest.raises(VitrailError, match="own cache"):
        fast(IDS, TokenSequence(5, start=2))
    model.backbone.stages[0].blocks[0].register_forward_hook(lambda *given: None)
    with pytest.raises(VitrailError, match="hooks"):
        vitrail.optimize(model)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["skylake-avx512", "haswell", "x86-64"])
def test_other_processors_agree(machine, tmp_path):
    """The same tests, with the code that a processor without VNNI, without AVX-512 or without AVX2 runs."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("needs an x86-64 processor")
    flags = os.environ.get("VITRAIL_CXXFLAGS", "") + f" -march={machine}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-m", "not slow"],
        env={**os.environ, "VITRAIL_CXXFLAGS": flags}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
