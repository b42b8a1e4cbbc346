"""Fused residual networks: any size, a few images at a time, unknown parts."""

from typing import Any

import pytest
import torch
from small_models import relative, small
from torch import nn

import vitrail
from vitrail.fused import bottlenecks, stems
from vitrail.fused.bottlenecks import FusedBottlenecks, fuse_stage
from vitrail.fused.stems import FusedStem, fuse_stem
from vitrail.fused.unsupported import NotConverted
from vitrail.native.build import refusal
from vitrail.parts.bottlenecks import PreActivationBottleneck, PreActivationEntry
from vitrail.parts.convolutions import SameMaxPool2d, StdConv2d
from vitrail.parts.embeddings import ConvStem
from vitrail.parts.norms import GroupNormReLU, MapGroupNorm
from vitrail.parts.stages import Stage

NAMES = ["bit", "hybrid", "hybrid stem"]
REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(33, 35), (60, 92), (8, 130)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    model, images = small(name), torch.randn(3, 3, *size)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
        want, got = model.features(images), fast.features(images)
    assert fast.unconverted == {} and got.grid == want.grid
    assert all(relative(ours, theirs) < 1e-5 for ours, theirs in zip(got.pyramid, want.pyramid, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_single_images_equal_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, images = vitrail.optimize(small(name), precision="fp32"), torch.randn(3, 3, 40, 48)
    with torch.inference_mode():
        together = fast(images)
        for room in (bottlenecks, stems):
            monkeypatch.setattr(room, "TOGETHER", 1)
            assert torch.equal(fast(images), together)


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
def test_a_bf16_stem_is_within_its_storage_precision() -> None:
    pool = nn.Sequential(nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, stride=2))
    stem, images = ConvStem(StdConv2d(3, 32, 7, 2), nn.Identity(), pool), torch.randn(2, 3, 37, 52)
    exact, grid = fuse_stem(stem, torch.float32)(images)
    got, same = fuse_stem(stem, torch.bfloat16)(images)
    assert got.dtype == torch.float16 and same == grid
    # stored in fp16, 2^-11 of each number; once rounded to bf16, filters alone would make five times this
    assert relative(got.float(), exact) < 2**-11


def test_converted_stages() -> None:
    bit, hybrid = (vitrail.optimize(small(name), precision="fp32") for name in ("bit", "hybrid"))
    for fast in (bit, hybrid):
        assert sum(isinstance(module, FusedBottlenecks) for module in fast.modules()) == 2
        assert sum(isinstance(module, FusedStem) for module in fast.modules()) == 1
        assert not any(isinstance(module, StdConv2d) for module in fast.modules())


def test_other_stages_are_not_converted() -> None:
    stage = small("vit").backbone.stages[0]
    assert isinstance(stage, Stage) and fuse_stage(stage, torch.float32) is stage


def test_unknown_types_are_reported() -> None:
    class Other(PreActivationBottleneck):
        pass

    class OtherConv(StdConv2d):
        pass

    with pytest.raises(NotConverted, match="Other has no"):
        fuse_stage(Stage([Other(128, 128)], PreActivationEntry(32, 128)), torch.float32)
    entry = PreActivationEntry(32, 128)
    entry.conv2 = OtherConv(32, 32, 3)
    with pytest.raises(NotConverted, match="its conv2 is OtherConv"):
        fuse_stage(Stage([], entry), torch.float32)


@pytest.mark.parametrize(
    ("norm", "pool", "reason"),
    [
        (nn.Identity(), SameMaxPool2d(3, 2), "the lowest value"),
        (MapGroupNorm(16, 32), SameMaxPool2d(3, 2), "its norm is MapGroupNorm"),
        (GroupNormReLU(16, 32), nn.MaxPool2d(3, 2), "its pool is MaxPool2d"),
        (nn.Identity(), nn.Sequential(nn.ConstantPad2d(1, -1.0), nn.MaxPool2d(3, 2)), "Sequential has no"),
    ],
)
def test_unknown_stems_are_reported(norm: nn.Module, pool: nn.Module, reason: str) -> None:
    with pytest.raises(NotConverted, match=reason):
        fuse_stem(ConvStem(StdConv2d(3, 32, 7, 2), norm, pool), torch.float32)


def test_channels_below_the_vector_width_are_reported() -> None:
    pool = nn.Sequential(nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, stride=2))
    with pytest.raises(NotConverted, match="24 channels"):
        fuse_stem(ConvStem(StdConv2d(3, 24, 7, 2), nn.Identity(), pool), torch.float32)
