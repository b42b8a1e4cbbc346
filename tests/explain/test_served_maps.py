"""Attention maps in binary form: equal to the captured maps within a level, windows kept, rows on their own."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import SMALL

from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.explain import served_maps
from vitrail.explain.maps import attention_maps
from vitrail.explain.served_maps import decode_maps, encode_image_maps, layers_with_maps
from vitrail.models import create_model

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8))


def small(name: str):
    torch.manual_seed(0)
    return create_model(SMALL[name].variant, **SMALL[name].overrides).eval()


@pytest.mark.parametrize("name", ["vit", "deit distilled", "swin masked", "nat", "pvt", "cait"])
def test_every_weight_is_that_of_the_captured_map(name: str) -> None:
    model = small(name)
    answer = decode_maps(encode_image_maps(model, IMAGE))
    with torch.no_grad(), attention_maps(model) as maps:
        model(EvalTransform(model.preprocess)(IMAGE)[None])
    assert [layer.address for layer in layers_with_maps(model)] == [one["layer"] for one in answer.header["sent"]]
    for sent, layer, captured in zip(answer.header["sent"], answer.layers, maps, strict=True):
        truth = captured.probabilities[0].detach().numpy()
        assert np.array_equal(layer.slots, captured.slots) and np.array_equal(layer.keys, captured.keys)
        assert (np.abs(layer.weights - truth) <= np.abs(truth).max(-1, keepdims=True) / 250).all()
        assert sent["grid"] == [captured.grid.h, captured.grid.w] and sent["prefix"] == captured.grid.prefix


def test_a_window_model_sends_windows_and_one_row_is_the_row_of_its_layer() -> None:
    model = small("swin masked")
    whole = decode_maps(encode_image_maps(model, IMAGE, layer="0.1"))
    groups, _, n, m = whole.header["sent"][0]["shape"]
    assert groups > 1 and n == m == 49
    row = decode_maps(encode_image_maps(model, IMAGE, layer="0.1", query=37)).layers[0]
    group, place = np.argwhere(whole.layers[0].slots == 37)[0]
    scattered = np.zeros((row.weights.shape[1], row.keys.size + 1), np.float32)
    np.add.at(scattered, (slice(None), whole.layers[0].keys[group]), whole.layers[0].weights[group, :, place])
    assert np.abs(row.weights[0, :, 0] - scattered[:, :-1]).max() < row.weights.max() / 100


def test_a_large_layer_is_sent_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("vit")
    monkeypatch.setattr(served_maps, "MOST_WEIGHTS", 1200)
    answer = decode_maps(encode_image_maps(model, IMAGE))  # 3 heads, 17 tokens: 867 weights a layer
    assert [one["layer"] for one in answer.header["sent"]] == ["1"] and not answer.header["layers"][0]["rows_only"]
    monkeypatch.setattr(served_maps, "MOST_WEIGHTS", 500)
    answer = decode_maps(encode_image_maps(model, IMAGE))
    assert answer.header["layers"][1]["rows_only"] and answer.layers[0].levels.size == 0
    row = decode_maps(encode_image_maps(model, IMAGE, layer="1", query=3))
    assert row.layers[0].weights.shape == (1, 3, 1, 17)
    assert row.layers[0].weights.sum(-1) == pytest.approx(1, abs=0.02)


def test_models_and_places_without_maps_are_refused() -> None:
    with pytest.raises(VitrailError, match="no softmax attention"):
        encode_image_maps(small("poolformer"), IMAGE)
    assert layers_with_maps(small("poolformer")) == []
    model = small("cait")
    last = layers_with_maps(model)[-1].address
    for choice, message in (
        ({"layer": "9.9"}, "no block"),
        ({"query": 1}, "layer"),
        ({"layer": last, "query": 5}, "no query"),
    ):
        with pytest.raises(VitrailError, match=message):
            encode_image_maps(model, IMAGE, **choice)
