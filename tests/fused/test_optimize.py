"""Optimized models: every architecture, any size, both precisions, reports."""

import copy
from typing import Any

import pytest
import torch
from small_models import SMALL, relative, small

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.attention import FusedAttention
from vitrail.native import build as native_build
from vitrail.native.build import refusal

COMPILED = refusal(torch.float32)


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_gives_the_same_output(name: str) -> None:
    model, images = small(name), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        want = model(images)
        assert relative(vitrail.optimize(model, precision="fp32")(images), want) < 1e-5
        plain = copy.deepcopy(model).bfloat16()(images.bfloat16()).float()
        got = vitrail.optimize(model, precision="bf16")(images)
    assert got.dtype == torch.float32
    assert relative(got, want) < max(1.5 * relative(plain, want), 1e-2)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_model_and_optimized_model_share_no_state(name: str, precision: Any) -> None:
    """Weights are not copied before they are laid out; spoiling the model shows whether any is still shared."""
    model, images = small(name), torch.randn(2, 3, 64, 64)
    before = copy.deepcopy(model.state_dict())
    fast = vitrail.optimize(model, precision)
    assert not any(weight.requires_grad for weight in fast.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    again = vitrail.optimize(model, precision)
    with torch.inference_mode():
        want = fast(images)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_() if value.dtype == torch.long else value.fill_(1e3)
    with torch.inference_mode():  # the second model fills its caches only now
        assert torch.equal(fast(images), want) and torch.equal(again(images), want)


@pytest.mark.parametrize("name", ["vit", "swin official", "swin timm", "swin masked", "swin v2", "deit distilled"])
@pytest.mark.parametrize("size", [(32, 32), (60, 92), (64, 64), (28, 128)])
def test_any_size_one_after_the_other(name: str, size: tuple[int, int]) -> None:
    model = small(name)
    fast = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        for side in (size, (64, 64), size):  # the table of a grid is not that of the one before
            images = torch.randn(1, 3, *side)
            assert relative(fast(images), model(images)) < 1e-5


@pytest.mark.skipif(COMPILED is not None, reason=str(COMPILED))
def test_attention_and_mlps_are_converted_and_the_rest_is_reported() -> None:
    swin: Any = vitrail.optimize(small("swin official"), precision="fp32")
    assert swin.unconverted == {}
    assert sum(isinstance(module, FusedAttention) for module in swin.modules()) == 4
    pool: Any = vitrail.optimize(small("poolformer"), precision="fp32")
    assert pool.unconverted == {}


@pytest.mark.skipif(COMPILED is not None, reason=str(COMPILED))
def test_grid_cache_is_bounded() -> None:
    fast = vitrail.optimize(small("swin official"), precision="fp32")
    with torch.inference_mode():
        for side in range(32, 80, 4):
            fast(torch.zeros(1, 3, side, 32))
    assert max(len(m.groups.tables) for m in fast.modules() if isinstance(m, FusedAttention)) == 8


def test_the_model_is_not_modified() -> None:
    model = small("swin official").train()
    before = copy.deepcopy(model.state_dict())
    fast = vitrail.optimize(model, precision="bf16")
    assert model.training and not fast.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_features_are_given_in_the_same_layout() -> None:
    model, images = small("swin official"), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        want, got = model.features(images), vitrail.optimize(model, precision="fp32").features(images)
    assert got.grid == want.grid
    assert relative(got.tokens, want.tokens) < 1e-5
    for ours, theirs in zip(got.pyramid, want.pyramid, strict=True):
        assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", ["vit", "deit distilled", "swin official", "poolformer timm", "bit"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_close_logits_are_distinguished(name: str, precision: Any) -> None:
    """A class that leads by less than bf16 can write still leads: the last norm and the head compute in fp32."""
    model, images = small(name), torch.randn(4, 3, 64, 64)
    head: Any = model.head
    layers = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            layer.weight[1:] = layer.weight[:1]
            layer.bias.copy_(16 + 1e-3 * torch.arange(10.0))  # bf16 goes by eighths from 16 on
    with torch.inference_mode():
        logits = vitrail.optimize(model, precision)(images)
    torch.testing.assert_close(logits.diff(dim=1), torch.full((4, 9), 1e-3), rtol=0, atol=2e-5)


def test_without_a_compiler_nothing_is_converted(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr(native_build, "_FOUND", {})
    model, images = small("vit"), torch.randn(1, 3, 64, 64)
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert any("no C++ compiler" in reason for reason in fast.unconverted)
    with torch.inference_mode():
        assert torch.equal(fast(images), model(images))


def test_a_wrong_precision_lists_the_valid_ones() -> None:
    with pytest.raises(VitrailError, match="bf16"):
        vitrail.optimize(small("vit"), precision="bf61")  # pyright: ignore[reportArgumentType]
