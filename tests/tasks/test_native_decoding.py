"""The decoder that tasks take: made once for each state of a model, or the model itself with the reason."""

import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.tasks.language.continuation import generate_text
from vitrail.tasks.language.options import GenerateOptions
from vitrail.tasks.native_decoding import decoder_of
from vitrail.tasks.translate.options import BeamFlags
from vitrail.text.learning import learn_characters

TEXT = "the quick brown fox jumps over the lazy dog. "
SIZES = {"dim": 16, "depth": 1, "num_heads": 2}


def decoder_model(**sizes):
    model = create_model("text_decoder_tiny", **{**SIZES, "vocab_size": 30, **sizes}).eval()
    model.inputs = learn_characters(TEXT)
    return model


def test_it_is_made_once_and_again_when_weights_change():
    model = decoder_model()
    fast = decoder_of(model, "auto", 64)
    assert fast.precision == "fp32" and decoder_of(model, "fp32", 64) is fast
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    again = decoder_of(model, "auto", 64)
    ids = torch.tensor([[1, 2, 3]])
    assert again is not fast and torch.allclose(again(ids), model(ids), atol=1e-5)
    assert decoder_of(model, "int8", 64).precision == "int8" and decoder_of(model, "torch", 64) is model


def test_others_decode_in_pytorch_with_the_reason():
    model, lines = create_model("retnet_1b3", **SIZES, vocab_size=30).eval(), []
    assert decoder_of(model, "auto", 64, lines.append) is model
    assert lines[0].startswith("decoding in PyTorch: retnet_1b3 has no optimized form: ")
    with pytest.raises(VitrailError, match="no optimized form"):
        decoder_of(model, "int8", 64)
    assert decoder_of(decoder_model(), "auto", 5000, lines.append).variant and "not for 5000" in lines[1]


def test_a_text_is_that_of_pytorch():
    model = decoder_model()
    both = [
        "".join(generate_text(model, "the ", GenerateOptions(tokens=50, seed=2, decode=decode), 32))
        for decode in ("auto", "torch")
    ]
    assert both[0] == both[1] != ""
    with pytest.raises(VitrailError, match="decode"):
        GenerateOptions(decode="fp64")
    with pytest.raises(VitrailError, match="decode"):
        BeamFlags(decode="fp64")
