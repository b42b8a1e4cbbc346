"""Optimized detectors find the boxes and masks of the plain ones."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.models import create_model
from vitrail.native.build import refusal
from vitrail.parts.detection.boxes import Boxes
from vitrail.tasks.detect.answers import DETECTED, SizedImages, compare_boxes

BACKBONES: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {"dim": 16, "depths": (1, 2), "num_heads": (1, 2)},
    "vit_tiny_patch16_224": {"depth": 1, "dim": 32, "num_heads": 2},
    "resnet50": {"dim": 8, "depths": (1, 1, 1, 1)},
}
SIZES = [(64, 80), (50, 80)]
pytestmark = pytest.mark.skipif(refusal(torch.float32) is not None, reason="no C++ compiler here")


def detector(head: str, backbone: str) -> Any:
    torch.manual_seed(0)
    model = create_model(
        head,
        backbone=backbone,
        backbone_config=BACKBONES[backbone],
        channels=16,
        hidden=32,
        num_classes=5,
        image_size=64,
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", ["faster_rcnn", "mask_rcnn"])
def test_the_same_boxes_and_masks(head: str, backbone: str) -> None:
    model, images = detector(head, backbone), torch.randn(2, 3, 64, 96)
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert not any(isinstance(module, nn.Conv2d) for module in fast.head.modules())
    assert isinstance(fast.head.fpn, FeaturePyramidNetwork)
    for got, want in zip(fast.dense(images), model.dense(images), strict=True):
        for mine, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=0)
    got, want = fast(images, SIZES), model(images, SIZES)
    assert compare_boxes(got, want, "fp32").holds
    for mine, theirs in zip(got, want, strict=True):
        assert len(mine.boxes) == len(theirs.boxes) > 0
        torch.testing.assert_close(mine.boxes, theirs.boxes, atol=1e-2, rtol=1e-4)
        if theirs.masks is not None:
            torch.testing.assert_close(mine.masks, theirs.masks, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_no_object_and_one_pixel() -> None:
    model = detector("mask_rcnn", "swin_tiny_patch4_window7_224")
    model.head.roi_heads.score_thresh = 2.0
    fast: Any = vitrail.optimize(model)
    for images, sizes in ((torch.randn(1, 3, 32, 64), [(32, 64)]), (torch.randn(1, 3, 32, 32), [(1, 1)])):
        (found,) = fast(images, sizes)
        assert found.boxes.shape == (0, 4) and found.masks.shape[0] == 0


@torch.inference_mode()
def test_jobs_may_choose_it() -> None:
    model, chosen = detector("faster_rcnn", "swin_tiny_patch4_window7_224"), []
    clock = iter(range(1000))
    runner = InferenceRunner(model, None, notify=chosen.append, kind=DETECTED, clock=lambda: next(clock))
    batch = SizedImages(torch.randn(6, 3, 64, 64), [(64, 64)] * 3 + [(50, 64)] * 3)
    found = runner(batch)
    assert compare_boxes(found, model(batch.images, batch.sizes), "fp32").holds and len(found) == 6
    assert len(chosen) == 1 and "no faster here (1.00x)" in str(chosen[0])


def test_agreement_of_boxes() -> None:
    truth = Boxes(torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), torch.tensor([0.9, 0.52]), torch.tensor([0, 1]))
    moved = truth._replace(boxes=truth.boxes + torch.tensor([0.2, 0, 0.2, 0]))
    assert compare_boxes([moved], [truth], "fp32").holds
    without = Boxes(*(part[:1] for part in truth[:3]))
    lost = compare_boxes([without], [truth], "bf16")
    assert lost.decided == 1 and lost.same_decided == 1.0 and lost.error == pytest.approx(0.26) and not lost.holds
    broken = truth._replace(scores=torch.tensor([0.9, float("nan")]))
    assert compare_boxes([broken], [truth], "fp32").error is None
    none = Boxes(*(part[:0] for part in truth[:3]))
    assert compare_boxes([none], [none], "fp32").holds and not compare_boxes([none], [truth], "fp32").holds


def test_losses_need_the_original() -> None:
    fast = vitrail.optimize(detector("faster_rcnn", "vit_tiny_patch16_224"), precision="fp32")
    with pytest.raises(VitrailError, match="an optimized"):
        vitrail.save_model(fast, "nowhere")
