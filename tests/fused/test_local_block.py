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
    return model


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (64, 33)])
def test_any_size(size: tuple[int, int]) -> None:
    model, images = a_model(), torch.randn(3, 3, *size)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
    kinds = [type(part) for part in fast.modules()]
    assert kinds.count(FusedLocalBlock) == kinds.count(FusedCrossCovariance) == 2
    assert fast.unconverted["local mixer: LocalPatchInteraction has no fused operation"] == 2


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
def test_bf16_is_near_fp32() -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="bf16")(images), model(images)) < 5e-2  # scales of about one


def test_tokens_of_length_zero_give_no_nan() -> None:
    model = a_model()
    mixer = model.get_submodule(MIXER)
    mixer.qkv.weight.zero_(), mixer.qkv.bias.zero_()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="fp32")(images), model(images)) < 1e-5


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
    assert sum(isinstance(part, UnfusedBranch) for part in fast.modules()) == 3  # local mixers too
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
