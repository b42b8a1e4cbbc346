"""Optimized restorers: equal to the plain model, pickled, and other kinds of models refused by name."""

import pickle

import pytest
import torch
from torch import nn

import vitrail
from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.parts.model import Model


def small(name: str) -> Model:
    model = create_model(name, dim=24, depths=(2, 2), num_heads=2).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("bf16", 2e-2), ("int8", 2e-2)])
@pytest.mark.parametrize("name", ["swinir_light_x2", "swinir_gray_jpeg"])
def test_an_optimized_restorer_gives_the_same_image(name: str, precision: str, limit: float) -> None:
    model = small(name)
    images = torch.rand(1, model.config.in_channels, 21, 30)
    fast = vitrail.optimize(model, precision)  # type: ignore[arg-type]
    plain = model(images)
    assert (fast(images) - plain).abs().max() <= limit * plain.abs().max()
    assert fast.scale == model.scale and fast.task == "restore"
    assert not any("Block:" in reason for reason in fast.unconverted)
    again = pickle.loads(pickle.dumps(fast))
    assert torch.equal(again(images), fast(images))


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(VitrailError, match="has no optimized form"):
        vitrail.optimize(Model())  # type: ignore[arg-type]
