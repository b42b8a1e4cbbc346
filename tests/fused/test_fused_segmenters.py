"""Optimized segmenters give the scores of the plain ones."""

from typing import Any

import pytest
import torch
from torch import nn

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.fused.dense_head import Fp32Maps
from vitrail.fused.map_convolution import FusedConv1x1, FusedConv3x3
from vitrail.models import create_model
from vitrail.native.build import refusal

BACKBONES: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {"dim": 16, "depths": (1, 2), "num_heads": (1, 2)},
    "vit_tiny_patch16_224": {"depth": 2, "dim": 32, "num_heads": 2},
    "convnext_atto": {"dims": (8, 16), "depths": (1, 1)},
    "poolformer_s12": {"dims": (8, 16), "depths": (1, 1)},
}
pytestmark = pytest.mark.skipif(refusal(torch.float32) is not None, reason="no C++ compiler here")


def segmenter(head: str, backbone: str) -> Any:
    model = create_model(
        head, backbone=backbone, backbone_config=BACKBONES[backbone], channels=16, num_classes=5, image_size=64
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer) * 0.5)
    return model


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", ["upernet", "segformer", "fpn_segmenter"])
def test_equal_scores_at_any_size(head: str, backbone: str) -> None:
    model = segmenter(head, backbone)
    fast = vitrail.optimize(model, precision="fp32")
    assert isinstance(fast.head.maps, Fp32Maps)
    assert any(isinstance(module, FusedConv1x1 | FusedConv3x3) for module in fast.modules())
    assert not any(isinstance(module, nn.Conv2d) for module in fast.head.main.modules())
    for size in ((64, 64), (50, 90)):
        images = torch.randn(2, 3, *size)
        with torch.inference_mode():
            want = model(images)
            assert ((fast(images) - want).abs().max() / want.abs().max()).item() < 1e-4
    assert not any(isinstance(module, FusedConv1x1) for module in model.modules())


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_reduced_precision_is_close(backbone: str) -> None:
    if refusal(torch.bfloat16) is not None:
        pytest.skip("no bf16 here")
    model = segmenter("upernet", backbone)
    fast, images = vitrail.optimize(model, precision="bf16"), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        want, got = model(images), fast(images)
    assert got.dtype == torch.float32
    assert ((got - want).abs().max() / (want.max() - want.min())).item() < 3e-2


def test_segmentation_jobs_may_use_it() -> None:
    model, chosen = segmenter("fpn_segmenter", "swin_tiny_patch4_window7_224"), []
    with torch.inference_mode():
        runner = InferenceRunner(model, 100_000, notify=chosen.append)
        images = torch.randn(6, 3, 64, 64)
        torch.testing.assert_close(runner(images), model(images), atol=1e-3, rtol=1e-3)
    assert len(chosen) == 1 and "has no other" not in str(chosen[0])


def test_optimized_segmenters_are_not_saved(tmp_path: Any) -> None:
    fast = vitrail.optimize(segmenter("segformer", "vit_tiny_patch16_224"), precision="fp32")
    with pytest.raises(VitrailError, match="an optimized"):
        vitrail.save_model(fast, tmp_path / "folder")
