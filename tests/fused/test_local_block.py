"""Fused cross-covariance attention and XCiT's blocks: sizes, precisions, and parts that they do not compute."""

from typing import Any

import pytest
import torch
from small_models import relative  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused.blocks import UnfusedBranch
from vitrail.fused.cross_covariance import FusedCrossCovariance
from vitrail.fused.local_block import FusedLocalBlock
from vitrail.fused.local_patches import FusedLocalPatches
from vitrail.fused.unsupported import NotConverted
from vitrail.native.build import refusal

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
MIXER = "backbone.stages.0.blocks.0.token_mixer"


def a_model() -> Any:
    """Make an XCiT whose temperatures and scales differ."""
    torch.manual_seed(0)
    sizes: Any = {"dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
    model = vitrail.create_model("xcit_small_12_p16_224", **sizes).eval().requires_grad_(False)
    for name, values in model.named_parameters():
        if "temperature" in name or "gamma" in name:
            nn.init.uniform_(values, 0.5, 2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.3)  # pyright: ignore[reportArgumentType]
    return model


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (64, 33)])
def test_any_size(size: tuple[int, int]) -> None:
    model, images = a_model(), torch.randn(3, 3, *size)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
    kinds = [type(part) for part in fast.modules()]
    assert kinds.count(FusedLocalBlock) == kinds.count(FusedCrossCovariance) == 2
    assert kinds.count(FusedLocalPatches) == 2 and not any(text.startswith("local") for text in fast.unconverted)


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
def test_bf16_is_near_fp32() -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="bf16")(images), model(images)) < 5e-2  # scales of about one


def test_odd_widths_in_bf16_are_reported() -> None:
    block: Any = (
        vitrail.create_model("xcit_small_12_p16_224", dim=45, depth=1, num_heads=3).backbone.stages[0].blocks[0]
    )
    with pytest.raises(NotConverted, match="even width"):
        FusedCrossCovariance(block.norm1, block.token_mixer, nn.Identity(), torch.bfloat16)


def test_tokens_of_length_zero_give_no_nan() -> None:
    model = a_model()
    mixer = model.get_submodule(MIXER)
    mixer.qkv.weight.zero_(), mixer.qkv.bias.zero_()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="fp32")(images), model(images)) < 1e-5


LOCAL: dict[str, tuple[str, nn.Module, str]] = {
    "norm": ("norm3", nn.RMSNorm(48), "RMSNorm"),
    "act": ("local_mixer.act", nn.GELU("tanh"), "approximate GELU"),
    "conv": ("local_mixer.conv2", nn.Conv2d(48, 48, 3, padding=1), "no depthwise one"),
    "scale": ("scale3", nn.PReLU(), "its scale is PReLU"),
}


@pytest.mark.parametrize("change", LOCAL)
def test_other_local_parts_are_reported_and_run(change: str) -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    place, part, reason = LOCAL[change]
    model.set_submodule(f"backbone.stages.0.blocks.0.{place}", part)
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert any(text.startswith("local mixer") and reason in text for text in fast.unconverted), fast.unconverted
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


@pytest.mark.parametrize("change", ["norm", "parameter", "hook"])
def test_other_parts_are_reported_and_run(change: str) -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    mixer = model.get_submodule(MIXER)
    if change == "norm":
        model.set_submodule("backbone.stages.0.blocks.0.norm1", nn.RMSNorm(48))
    elif change == "parameter":
        mixer.register_parameter("gain", nn.Parameter(torch.ones(1)))
    else:
        mixer.register_forward_hook(lambda module, given, y: 2 * y)
    fast: Any = vitrail.optimize(model, precision="fp32")
    reason = {"norm": "RMSNorm", "parameter": "unknown part gain", "hook": "hooks"}[change]
    assert any(text.startswith("token mixer") and reason in text for text in fast.unconverted), fast.unconverted
    assert sum(isinstance(part, UnfusedBranch) for part in fast.modules()) == 1
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
