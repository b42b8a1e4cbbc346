"""Models in int8: quantized parts, accuracy, reports."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import relative, small
from torch import Tensor

import vitrail
from vitrail.bench.inputs import views
from vitrail.fused import cpu as room
from vitrail.fused.int8 import Int8Attention, Int8MLP
from vitrail.native.int8 import int8_refusal

REASON = int8_refusal()
needs_bytes = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def count(model: Any, kind: type) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@needs_bytes
@pytest.mark.parametrize(
    ("name", "blocks"), [("vit", 2), ("deit distilled", 2), ("swin official", 4), ("swin timm", 4), ("hybrid", 2)]
)
def test_int8_blocks_have_a_small_error(name: str, blocks: int) -> None:
    model, images = small(name), torch.randn(4, 3, 64, 64)
    fast: Any = vitrail.optimize(model, precision="int8")
    assert count(fast, Int8Attention) == count(fast, Int8MLP) == blocks
    convolving = {"stage: convolutions of bottlenecks have no int8 operation": 2}
    assert fast.unconverted == (convolving if name == "hybrid" else {})
    with torch.inference_mode():
        want = model(images)
        assert 1e-4 < relative(fast(images), want) < 0.03  # less than eight bits could lose would be no int8


@needs_bytes
@pytest.mark.parametrize("size", [(28, 128), (60, 92)])
def test_any_size(size: tuple[int, int]) -> None:
    model, images = small("swin official"), torch.randn(1, 3, *size)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="int8")(images), model(images)) < 0.03


@needs_bytes
def test_unsupported_int8_parts_use_the_usual_precision_and_are_reported() -> None:
    model, images = small("poolformer"), torch.randn(2, 3, 64, 64)
    fast: Any = vitrail.optimize(model, precision="int8")
    assert fast.unconverted == {
        "token mixer: Pooling has no int8 operation": 3,
        "channel mixer: an MLP after TokenGroupNorm has no int8 operation": 3,
        "everything in int8: no part of this model has an int8 operation": 1,
    }
    with torch.inference_mode():
        assert torch.equal(fast(images), vitrail.optimize(model)(images))


@needs_bytes
def test_convolutional_models_are_refused_in_int8() -> None:
    fast: Any = vitrail.optimize(small("bit"), precision="int8")
    assert fast.unconverted == {
        "stage: convolutions of bottlenecks have no int8 operation": 2,
        "everything in int8: no part of this model has an int8 operation": 1,
    }


def test_a_machine_without_int8_instructions_falls_back_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "int8_refusal", lambda: "this processor is too old")
    model, images = small("vit"), torch.randn(2, 3, 64, 64)
    fast: Any = vitrail.optimize(model, precision="int8")
    assert fast.unconverted["everything in int8: this processor is too old"] == 1 and count(fast, Int8MLP) == 0
    with torch.inference_mode():
        assert torch.equal(fast(images), vitrail.optimize(model)(images))


@needs_bytes
@pytest.mark.shared
def test_a_trained_vit_keeps_its_predictions(shared: Path) -> None:
    """12 views of each of 17 photographs; the label is the fp32 prediction on the whole photograph."""
    weights = shared / "weights" / "vit_tiny_patch16_224.pt"
    model = vitrail.create_model("vit_tiny_patch16_224", weights=weights).eval()
    images = views(str(shared / "data" / "imagenet17" / "*.JPEG"), model.preprocess, 17 * 12)
    truth = answers(model, images[:17]).argmax(1).repeat(12)
    plain, fast = (answers(each, images) for each in (vitrail.optimize(model), vitrail.optimize(model, "int8")))
    assert right(fast, truth) >= right(plain, truth) - 1 / len(truth)  # one image is half a point
    assert relative(fast, plain) < 0.06


def answers(model: Any, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(part) for part in images.split(32)])


def right(logits: Tensor, truth: Tensor) -> float:
    return (logits.argmax(1) == truth).float().mean().item()
