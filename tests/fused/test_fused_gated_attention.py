"""Fused gated attention of ConViT: sizes, precisions, and parts that it does not compute."""

from typing import Any

import pytest
import torch
from small_models import relative  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused.blocks import UnfusedBranch
from vitrail.fused.gated_attention import FusedGatedAttention
from vitrail.native.build import refusal
from vitrail.parts.attend import Attend
from vitrail.parts.positions import NoPosition

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def a_model() -> Any:
    """Make a ConViT whose gates and positions differ by head."""
    torch.manual_seed(0)
    sizes: Any = {"dim": 48, "depth": 2, "class_depth": 1, "num_heads": 4, "num_classes": 5, "patch_size": 8}
    model = vitrail.create_model("convit_tiny", **sizes).eval().requires_grad_(False)
    for name, values in model.named_parameters():
        if any(word in name for word in ("gate", "slope", "level")):
            nn.init.normal_(values)
    return model


@pytest.mark.parametrize("size", [(8, 8), (40, 56), (72, 24)])
def test_any_size(size: tuple[int, int]) -> None:
    model, images = a_model(), torch.randn(3, 3, *size)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        for _ in range(2):  # the second call finds the maps of the grid
            assert relative(fast(images), model(images)) < 1e-5
    assert fast.unconverted == {}
    assert sum(isinstance(part, FusedGatedAttention) for part in fast.modules()) == 2


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
def test_bf16_is_near_fp32() -> None:
    model, images = a_model(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="bf16")(images), model(images)) < 1e-2


def test_a_gate_alone_and_positions_alone_run_in_pytorch() -> None:
    for seat, part in (("position", NoPosition()), ("attend", Attend())):
        model, images = a_model(), torch.randn(2, 3, 64, 64)
        setattr(model.get_submodule("backbone.stages.0.blocks.0.token_mixer"), seat, part)
        fast: Any = vitrail.optimize(model, precision="fp32")
        assert sum(isinstance(part, UnfusedBranch) for part in fast.modules()) == 1 and len(fast.unconverted) == 1
        if seat == "attend":  # gated attention needs positions
            with torch.inference_mode():
                assert relative(fast(images), model(images)) < 1e-5
