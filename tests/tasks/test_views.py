"""Data of a point-cloud viewer besides a result."""

import base64

import numpy as np
import pytest
import torch

from vitrail.models import create_model
from vitrail.parts.attend import split_heads
from vitrail.tasks import find_options, find_task
from vitrail.tasks.results import Viewer
from vitrail.tasks.text_maps import self_attention
from vitrail.text.learning import learn_vocabulary


@pytest.mark.parametrize(
    ("task", "name", "sizes"),
    [
        ("points", "pointnet", {"dim": 16, "global_dim": 32}),
        ("parts", "pointnet_parts", {"dim": 16, "global_dim": 32}),
    ],
)
def test_a_viewer_of_clouds_gets_the_points_of_the_result(task: str, name: str, sizes: dict) -> None:
    model = create_model(name, **sizes, num_classes=3).eval()
    predictor = find_task(task).predictor(model, find_options(task).PredictOptions(), 1)
    [item] = find_task(task).collect(np.random.default_rng(0).normal(size=(80, 3)))
    [result] = predictor.predict([(item, predictor.load(item))])
    assert isinstance(predictor, Viewer)
    shown = predictor.view(result)
    points = np.array(shown["points"]).reshape(-1, 3) / 1000
    assert np.abs(points - result.points).max() < 1e-3
    assert shown.get("picks", []) == [] and len(shown.get("parts", points)) == len(points)


def test_a_viewer_of_texts_gets_the_attention_that_the_model_computes() -> None:
    torch.manual_seed(0)
    model = create_model("text_encoder_tiny", dim=16, depth=2, num_heads=4, num_classes=2, vocab_size=300).eval()
    model.inputs, model.metadata = learn_vocabulary(["a joy"], 300), {"labels": ("bad", "good")}
    predictor = find_task("sentiment").predictor(model, find_options("sentiment").PredictOptions(), 1)
    [item] = find_task("sentiment").collect(["a joy"])
    [result] = predictor.predict([(item, predictor.load(item))])
    shown = predictor.view(result)
    ids = model.inputs.encode(["a joy"]).ids[0]
    maps = self_attention(model, ids)
    assert maps is not None and shown["source"] == shown["target"] and len(shown["source"]) == len(ids)
    assert (shown["layers"], shown["heads"]) == (2, 4)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    levels = np.frombuffer(base64.b64decode(shown["maps"]), np.uint8).reshape(maps.shape)
    assert np.abs(levels / 255 - maps.numpy()).max() < 1 / 500
    mixer = next(module for module in model.modules() if hasattr(module, "qkv"))
    q, k, _ = split_heads(mixer.qkv(torch.randn(1, 3, 16)), 4)  # the mixer computes the formula
    expected = (q @ k.transpose(-1, -2) / 2).softmax(-1)
    torch.testing.assert_close(mixer.attend.maps(q, k, None), expected)


def test_texts_of_recurrent_models_have_no_maps() -> None:
    model = create_model("lstm_sst", num_classes=2, vocab_size=300).eval()
    assert self_attention(model, [1, 2, 3]) is None
