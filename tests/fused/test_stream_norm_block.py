"""Fused blocks whose residual is normalised, and tokenizers of convolutions and pooling: CCT."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import relative  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused.blocks import FusedStreamNormBlock, UnfusedBranch
from vitrail.fused.stems import FusedConvStem
from vitrail.native.build import refusal

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def a_model(layers: int = 2) -> Any:
    """Make a CCT whose norms are no identities."""
    torch.manual_seed(0)
    sizes: Any = {"dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5, "conv_layers": layers}
    model = vitrail.create_model("cct_14_7x2_224", **sizes).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("size", [(33, 35), (64, 92), (5, 66)])
def test_any_size(layers: int, size: tuple[int, int]) -> None:
    model, images = a_model(layers), torch.randn(3, 3, *size)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
    kinds = [type(part) for part in fast.modules()]
    assert fast.unconverted == {} and kinds.count(FusedStreamNormBlock) == 2 and FusedConvStem in kinds


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
def test_bf16_is_near_fp32() -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="bf16")(images), model(images)) < 1e-2


def test_single_images_equal_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, images = vitrail.optimize(a_model(), precision="fp32"), torch.randn(3, 3, 40, 48)
    with torch.inference_mode():
        together = fast(images)
        monkeypatch.setattr("vitrail.fused.stems.TOGETHER", 1)
        assert relative(fast(images), together) < 1e-6


def _set(path: str, part: nn.Module) -> Callable[[nn.Module], None]:
    return lambda model: model.set_submodule(path, part)


BLOCK, PATCHES = "backbone.stages.0.blocks.0", "backbone.embedding.patches"
CHANGES: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "another norm": (_set(f"{BLOCK}.norm2", nn.RMSNorm(48)), "norm2 is RMSNorm"),
    "a hook on the norm": (
        lambda model: model.get_submodule(f"{BLOCK}.norm2").register_forward_hook(lambda m, x, y: 2 * y),
        "norm2 has hooks",
    ),
    "another activation": (_set(f"{PATCHES}.pool.0", nn.GELU()), "its 0 is GELU"),
    "another pooling": (_set(f"{PATCHES}.pool.1", nn.MaxPool2d(2)), "no maximum of 3 x 3"),
    "a bias": (_set(f"{PATCHES}.convs.0", nn.Conv2d(3, 64, 7, 2, 3)), "has a bias"),
    "few channels": (_set(f"{PATCHES}.convs.0", nn.Conv2d(3, 40, 7, 2, 3, bias=False)), "do not fill whole vectors"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_unknown_parts_are_reported_and_run(change: str) -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    make, reason = CHANGES[change]
    make(model)
    if change == "few channels":
        model.set_submodule(f"{PATCHES}.convs.1", nn.Conv2d(40, 48, 7, 2, 3, bias=False))
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert any(reason in text for text in fast.unconverted), fast.unconverted
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


def test_an_unknown_branch_runs_in_pytorch() -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    model.set_submodule(f"{BLOCK}.channel_mixer.act", nn.SiLU())
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert sum(isinstance(part, UnfusedBranch) for part in fast.modules()) == 1 and len(fast.unconverted) == 1
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
