"""Fused bottlenecks with batch norms: convolution, local attention, called mixers, strides, unknown parts."""

from typing import Any

import pytest
import torch
from small_models import relative, small  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused import bottlenecks, stems
from vitrail.fused.bottlenecks import FusedBottlenecks
from vitrail.fused.conv_bottlenecks import FusedLocalAttention, fuse_conv_stage
from vitrail.fused.relative_attention import FusedHaloAttention
from vitrail.fused.stems import FusedConvStem, fuse_stem
from vitrail.fused.unsupported import NotConverted
from vitrail.native.build import refusal
from vitrail.parts.attention_bottlenecks import AttentionBottleneck, AttentionEntry
from vitrail.parts.embeddings import ConvStem
from vitrail.parts.resnet_stem import conv_norm_relu, plain_stem, tiered_stem
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.halo_attention import StandAloneAttention

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
WIDE = {"dim": 64, "depths": (1, 2), "num_classes": 5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "convolution": ("resnet50", WIDE),
    "local attention": ("sasa_resnet26", WIDE),
    "strided mixer": ("halonet26t", {**WIDE, "attention": ((), (0, 1)), "num_heads": (2, 2)}),
    "non-local block": ("nonlocal1_resnet50", {**WIDE, "blocks": ((), (1,))}),
}


def a_model(name: str) -> Any:
    """Make a model whose norms have statistics of their own."""
    torch.manual_seed(0)
    variant, changes = MODELS[name]
    model = vitrail.create_model(variant, **changes).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.3)  # pyright: ignore[reportArgumentType]
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(33, 35), (64, 92), (8, 66)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    model, images = a_model(name), torch.randn(3, 3, *size)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        want, got = model.features(images), fast.features(images)
    assert got.grid == want.grid and sum(isinstance(part, FusedBottlenecks) for part in fast.modules()) == 2
    assert all(relative(ours, theirs) < 1e-5 for ours, theirs in zip(got.pyramid, want.pyramid, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_single_images_equal_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, images = vitrail.optimize(a_model(name), precision="fp32"), torch.randn(3, 3, 40, 48)
    with torch.inference_mode():
        together = fast(images)
        for room in (bottlenecks, stems):
            monkeypatch.setattr(room, "TOGETHER", 1)
        assert relative(fast(images), together) < 1e-6


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
@pytest.mark.parametrize("name", MODELS)
def test_bf16_is_near_fp32(name: str) -> None:
    model, images = a_model(name), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(vitrail.optimize(model, precision="bf16")(images), model(images)) < 1e-2


def test_what_runs_natively() -> None:
    local: Any = vitrail.optimize(a_model("local attention"), precision="fp32")
    assert local.unconverted == {} and not any(isinstance(part, nn.Conv2d) for part in local.modules())
    assert sum(isinstance(part, FusedLocalAttention) for part in local.modules()) == 3
    assert sum(isinstance(part, FusedConvStem) for part in local.modules()) == 1
    halo: Any = vitrail.optimize(a_model("strided mixer"), precision="fp32")
    assert halo.unconverted == {}
    assert sum(isinstance(part, FusedHaloAttention) for part in halo.modules()) == 2
    non_local: Any = vitrail.optimize(a_model("non-local block"), precision="fp32")
    assert non_local.unconverted == {"NonLocalBlock has no fused operation": 1}


def test_other_neighborhoods_are_reported() -> None:
    block = AttentionEntry(64, 64, lambda dim: StandAloneAttention(dim, 2, kernel=9))
    with pytest.raises(NotConverted, match="has side 9"):
        fuse_conv_stage(Stage([], block), torch.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"act": nn.SiLU()}, "its act is SiLU"),
        ({"norm2": nn.BatchNorm2d(16, track_running_stats=False)}, "no running statistics"),
        ({"conv2": nn.Conv2d(16, 16, 3, padding=1)}, "has a bias"),
        ({"conv2": nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False)}, "dilation"),
        ({"gate": nn.Identity()}, "unknown part gate"),
    ],
)
def test_unknown_parts_are_reported(change: dict[str, nn.Module], reason: str) -> None:
    entry = AttentionEntry(64, 64)
    for name, part in change.items():
        setattr(entry, name, part)
    with pytest.raises(NotConverted, match=reason):
        fuse_conv_stage(Stage([AttentionBottleneck(64, 64)], entry), torch.float32)


@pytest.mark.parametrize("stem", [plain_stem(3, 32), tiered_stem(3, 32)])
def test_a_stem_of_any_width(stem: nn.Module) -> None:
    layer = ConvStem(stem.eval(), nn.Identity(), nn.MaxPool2d(3, 2, 1))
    images = torch.randn(2, 3, 37, 52)
    with torch.inference_mode():
        want, grid = layer(images)
        got, same = fuse_stem(layer, torch.float32)(images)
    assert same == grid and relative(got, want) < 1e-5


@pytest.mark.parametrize(
    ("conv", "pool", "reason"),
    [
        (plain_stem(3, 24), nn.MaxPool2d(3, 2, 1), "24 channels"),
        (plain_stem(3, 32), nn.MaxPool2d(2, 2), "no maximum of 3 x 3"),
        (conv_norm_relu(3, 32, 3, 1, nn.SiLU()), nn.MaxPool2d(3, 2, 1), "its 2 is SiLU"),
        (nn.Sequential(nn.Identity()), nn.MaxPool2d(3, 2, 1), "has a Identity"),
    ],
)
def test_unknown_stems_are_reported(conv: nn.Module, pool: nn.Module, reason: str) -> None:
    with pytest.raises(NotConverted, match=reason):
        fuse_stem(ConvStem(conv, nn.Identity(), pool), torch.float32)


def test_a_small_model_is_equal_too() -> None:
    model, images = small("sasa attention"), torch.randn(2, 3, 64, 64)
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert fast.unconverted == {"ConvStem: its conv is SpatiallyAwareAttention": 1}
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5
