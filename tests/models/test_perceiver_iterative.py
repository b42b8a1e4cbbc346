"""The original Perceiver against its description, step by step."""

import pytest
import torch

from vitrail.grid import Grid
from vitrail.models import create_model

SMALL = {"latents": 5, "dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}


@pytest.mark.parametrize("reads", [1, 2, 4])
def test_readings_and_transformers_in_turn(reads):
    model = create_model("perceiver_fourier", reads=reads, **SMALL).eval()
    images = torch.randn(2, 3, 7, 9)
    embedding, stage = model.backbone.embedding, model.backbone.stages[0]
    array = embedding.inputs(images)
    x = embedding.latents.expand(2, -1, -1)
    for layer in [embedding.layer, *[stage.layer] * (reads - 1)]:
        x = layer(x, array)
        for block in stage.blocks:
            x = block(x, Grid(1, 5))
    torch.testing.assert_close(model(images), model.head.linear(x.mean(1)))


def test_one_reading_leaves_the_second_cross_attention_unused():
    model = create_model("perceiver_fourier", reads=1, **SMALL)
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    assert all(p.grad is None for p in model.backbone.stages[0].layer.parameters())


def test_the_order_of_pixels_is_in_the_features_alone():
    model = create_model("perceiver_fourier", reads=2, **SMALL).eval()
    array, order = torch.randn(1, 30, 261), torch.randperm(30)
    read = model.backbone.embedding.read
    torch.testing.assert_close(read(array)[0], read(array[:, order])[0])
