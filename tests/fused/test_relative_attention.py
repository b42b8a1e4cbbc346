"""Fused attention with relative positions that queries read, against its modules."""

from typing import Any

import pytest
import torch
from small_models import relative  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.conv_bottlenecks import CalledMixer, fuse_conv_stage
from vitrail.fused.relative_attention import FusedBottleneckAttention, FusedHaloAttention
from vitrail.fused.unsupported import NotConverted
from vitrail.native.build import refusal
from vitrail.parts.attention_bottlenecks import AttentionEntry
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.bottleneck_attention import BottleneckAttention, RelativeLogits
from vitrail.parts.token_mixers.halo_attention import HaloAttention

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
PRECISIONS = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]


def near(mixer: Any, fused: Any, x: torch.Tensor, size: tuple[int, int], dtype: torch.dtype) -> float:
    """Return the relative error of the fused mixer."""
    if refusal(dtype) is not None:
        pytest.skip(str(refusal(dtype)))
    with torch.inference_mode():
        return relative(fused(mixer, dtype)(x.to(dtype), size).float(), mixer(x, vitrail.Grid(*size)))


@pytest.mark.parametrize(("dtype", "error"), PRECISIONS)
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("size", [(4, 5), (1, 1), (3, 2)])
def test_attention_over_a_map(size: tuple[int, int], scale: float, dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    mixer, x = BottleneckAttention(24, 3, RelativeLogits(8, (4, 5), scale)), torch.randn(2, size[0] * size[1], 24)
    assert near(mixer, FusedBottleneckAttention, x, size, dtype) < error


def test_a_map_larger_than_the_positions() -> None:
    fused = FusedBottleneckAttention(BottleneckAttention(8, 2, RelativeLogits(4, (2, 2), 1.0)), torch.float32)
    with pytest.raises(VitrailError, match="map of 2 x 2 cells and the image gives 3 x 2"):
        fused(torch.randn(1, 6, 8), (3, 2))


@pytest.mark.parametrize(("dtype", "error"), PRECISIONS)
@pytest.mark.parametrize(("block", "halo", "stride"), [(4, 1, 1), (4, 2, 2), (2, 3, 1), (1, 1, 1), (4, 0, 4)])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1)])
def test_blocks_and_windows(
    size: tuple[int, int], block: int, halo: int, stride: int, dtype: torch.dtype, error: float
) -> None:
    torch.manual_seed(0)
    mixer, x = HaloAttention(24, 3, block, halo, stride), torch.randn(2, size[0] * size[1], 24)
    assert near(mixer, FusedHaloAttention, x, size, dtype) < error


def test_odd_heads_are_reported_in_bf16() -> None:
    if refusal(torch.bfloat16) is not None:
        pytest.skip(str(refusal(torch.bfloat16)))
    with pytest.raises(NotConverted, match="even widths, got 18 and 9"):
        FusedHaloAttention(HaloAttention(18, 2, 4, 1), torch.bfloat16)


def test_another_position_is_called() -> None:
    class Others(RelativeLogits):
        pass

    entry = AttentionEntry(64, 64, lambda dim: BottleneckAttention(dim, 2, Others(dim // 2, (4, 4), 1.0)))
    stage = fuse_conv_stage(Stage([], entry), torch.float32)
    assert any(isinstance(part, CalledMixer) for part in stage.modules())


def test_weights_are_copied() -> None:
    torch.manual_seed(0)
    mixer: nn.Module = HaloAttention(8, 2, 2, 1)
    fused, x = FusedHaloAttention(mixer, torch.float32), torch.randn(1, 16, 8)  # pyright: ignore[reportArgumentType]
    with torch.inference_mode():
        before = fused(x, (4, 4))
        for weight in mixer.parameters():
            weight.zero_()
        assert torch.equal(fused(x, (4, 4)), before)
