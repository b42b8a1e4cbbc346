"""Optimized restorers: equal to the plain model, pickled, and other kinds of models refused by name."""

import pickle

import pytest
import torch
from torch import nn

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused import banded_head
from vitrail.fused.banded_head import in_bands
from vitrail.fused.map_convolution import fuse_map_conv
from vitrail.fused.walker import replace_modules
from vitrail.models import create_model
from vitrail.parts.model import Model
from vitrail.parts.reconstruction import reconstruction_head


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


@torch.no_grad()
@pytest.mark.parametrize(("upsampler", "scale"), [("pixelshuffle", 3), ("pixelshuffle", 4), ("nearest+conv", 4)])
@pytest.mark.parametrize("height", [9, 45, 83])
def test_bands_of_a_head_give_the_same_image_with_small_maps(upsampler, scale, height, monkeypatch) -> None:
    monkeypatch.setattr(banded_head, "ROWS", 12)
    monkeypatch.setattr(banded_head, "BAND", 0)
    heights = []
    for batch in (1, 2):
        whole = reconstruction_head(upsampler, 8, 3, scale)
        replace_modules(whole, lambda module: fuse_map_conv(module) if isinstance(module, nn.Conv2d) else None)
        features, image = torch.randn(batch, 8, height, 10), torch.rand(batch, 3, height, 10)
        expected = whole(features, image)
        banded = in_bands(whole, scale)
        whole.last.register_forward_hook(lambda _module, _inputs, y: heights.append(y.shape[2]))
        torch.testing.assert_close(banded(features, image), expected, rtol=0, atol=1e-5)
    assert max(heights) <= scale * (12 + 2 * banded_head.HALO)


def test_a_head_without_large_maps_stays_whole() -> None:
    head = reconstruction_head("pixelshuffledirect", 8, 3, 2)
    assert in_bands(head, 2) is head


def test_the_last_tokens_of_a_backbone_are_those_of_forward() -> None:
    model = small("swinir_light_x2")
    maps = torch.rand(1, 24, 16, 24)
    tokens, grid = model.backbone.last_tokens(maps)
    features = model.backbone(maps)
    assert torch.equal(tokens, features.tokens) and grid == features.grid


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(VitrailError, match="has no optimized form"):
        vitrail.optimize(Model())  # type: ignore[arg-type]
