"""Fused cross-attention of latents and causal attention of pixels: models, the array read once, other parts."""

from typing import Any

import pytest
import torch
from small_models import relative, small  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused.blocks import UnfusedBranch
from vitrail.fused.causal_attention import FusedCausalAttention
from vitrail.fused.color_tokens import FusedColorTokens
from vitrail.fused.cross_attention import FusedCrossLayer, fuse_cross_layer
from vitrail.fused.linear import DtypeBoundary
from vitrail.fused.norms import FusedRMSNorm
from vitrail.fused.unsupported import NotConverted
from vitrail.native.build import refusal
from vitrail.parts.latents import CrossLayer
from vitrail.parts.positions import RelativePositionBias

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
BF16 = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
)


def parts(model: nn.Module, kind: type) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, kind)]


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize(("array_dim", "inner", "heads"), [(6, 8, 2), (7, 7, 1), (5, 9, 3)])
def test_a_fused_layer_is_the_layer(array_dim: int, inner: int, heads: int, dtype: torch.dtype) -> None:
    """Odd widths have a zero channel more in bf16; norms with weights are folded in."""
    torch.manual_seed(0)
    layer = CrossLayer(12, array_dim, inner, heads).eval().requires_grad_(False)
    for value in layer.parameters():
        nn.init.normal_(value, std=0.3)
    x, array = torch.randn(2, 5, 12), torch.randn(2, 33, array_dim)
    with torch.inference_mode():
        want, got = layer(x, array), fuse_cross_layer(layer, dtype)(x, array)
    assert relative(got.float(), want) < (1e-5 if dtype == torch.float32 else 3e-2)


def test_an_array_is_projected_once_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("perceiver original", reads=4)
    fast: Any = vitrail.optimize(model, precision="fp32")
    layers, projected = parts(fast, FusedCrossLayer), []
    monkeypatch.setattr(
        FusedCrossLayer,
        "_project",
        lambda self, array, plain=FusedCrossLayer._project: (projected.append(self), plain(self, array))[1],
    )
    images = torch.randn(2, 2, 3, 64, 64)
    with torch.inference_mode():
        for one in images:
            assert relative(fast(one), model(one)) < 1e-5
            assert all(layer._known is None for layer in layers)
    assert [projected.count(layer) for layer in layers] == [2, 2]  # the first reading, and all others


@pytest.mark.parametrize("name", ["perceiver fourier", "perceiver original", "igpt"])
def test_every_part_is_fused(name: str) -> None:
    fast: Any = vitrail.optimize(small(name), precision="fp32")
    assert not fast.unconverted and not parts(fast, UnfusedBranch) and not parts(fast, DtypeBoundary)


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
def test_colors_are_chosen_in_fp32() -> None:
    """In bf16 a pixel between two colors would be another token."""
    model = small("igpt")
    tokens = model.backbone.embedding.patches
    fast: Any = vitrail.optimize(model, precision="bf16")
    (fused,) = parts(fast, FusedColorTokens)
    side = model.preprocess.size
    images = torch.linspace(-1, 1, 3 * side * side).reshape(1, 3, side, side)
    assert torch.equal(fused.tokens[0].quantise(images), tokens.quantise(images))
    assert fused.tokens[0].clusters.dtype == torch.float32
    blocks = len(model.backbone.stages[0].blocks)
    assert len(parts(fast, FusedCausalAttention)) == blocks and len(parts(fast, FusedRMSNorm)) == 2 * blocks


def test_causal_attention_with_other_positions_is_reported_and_run() -> None:
    model = small("igpt")
    mixer, side = model.backbone.stages[0].blocks[0].token_mixer, model.preprocess.size
    mixer.position = RelativePositionBias(mixer.num_heads, (side, side))
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert len(fast.unconverted) == 1 and "causal attention with RelativePositionBias" in str(fast.unconverted)
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


def test_a_cross_layer_with_other_parts_is_refused() -> None:
    layer = CrossLayer(8, 6, 8)
    layer.mlp.act = nn.ReLU()
    with pytest.raises(NotConverted, match="its act is ReLU"):
        fuse_cross_layer(layer, torch.float32)
    layer = CrossLayer(8, 6, 8)
    layer.norm_array = nn.LayerNorm((4, 6))
    with pytest.raises(NotConverted, match="not over 6 channels"):
        fuse_cross_layer(layer, torch.float32)
