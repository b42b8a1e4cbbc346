"""First values against the distributions that the authors' code draws from."""

import pytest
import torch
from torch import nn

from vitrail.models import create_model
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.initialisation import initialise, initialise_as_mixer


def bound(weight: torch.Tensor) -> float:
    outputs, inputs = weight.shape
    return (6 / (inputs + outputs)) ** 0.5


def assert_uniform(weight: torch.Tensor) -> None:
    """A uniform distribution fills its bounds, and its deviation is a / sqrt(3)."""
    a = bound(weight)
    assert 0.99 * a < weight.abs().max() <= a
    assert weight.std().item() == pytest.approx(a / 3**0.5, rel=0.05)


def linear(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224"])
def test_vit_draws_queries_keys_and_values_apart(name):
    model = create_model(name, depth=1, num_classes=40)
    layers = linear(model)
    (qkv,) = (layer for key, layer in layers.items() if key.endswith("qkv"))
    for part in qkv.weight.chunk(3):
        assert_uniform(part)
    assert qkv.weight.abs().max() > bound(qkv.weight)  # as one layer of three times the outputs it would be narrower
    for key, layer in layers.items():
        if layer is not qkv:
            assert_uniform(layer.weight)
        if ".channel_mixer." in key:
            assert layer.bias.std().item() == pytest.approx(1e-6, rel=0.2)
        else:
            assert not layer.bias.any()


def test_mixer_draws_from_a_cut_normal_of_the_inputs():
    layers = linear(create_model("mixer_s32_224", depth=1, num_classes=40))
    assert len(layers) == 5
    for layer in layers.values():
        std = layer.in_features**-0.5
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert 2 * std < layer.weight.abs().max() <= 2 * std / 0.8796  # the normal is cut at two of its own deviations
        assert not layer.bias.any()


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_the_rule_of_the_others_takes_every_layer_as_it_is(name):
    depth = {"depth": 1} if "deit" in name else {"depths": (1,), "num_heads": (3,)}
    for layer in linear(create_model(name, num_classes=40, **depth)).values():
        assert_uniform(layer.weight)
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("rule", [initialise, initialise_as_mixer])
def test_the_same_seed_draws_the_same_values(rule):
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        model = MLP(8, 16)
        rule(model)
        drawn.append(model.fc2.weight.detach().clone())
    assert torch.equal(*drawn)
