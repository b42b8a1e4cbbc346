"""Residual post-norm blocks with cosine attention within windows: fused, with equal outputs."""

from collections import Counter
from typing import Any

import pytest
import torch
from small_models import relative, small
from torch import nn

import vitrail
from closeness import with_threads
from vitrail.fused.blocks import fuse_post_norm_block
from vitrail.fused.cosine_attention import FusedCosineAttention, fuse_cosine_attention
from vitrail.fused.mlp import FusedMLP, FusedPostNormMLP, fuse_mlp
from vitrail.fused.table import unsupported_reason
from vitrail.fused.unsupported import NotConverted
from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.native.build import refusal
from vitrail.native.dtypes import RESIDUAL
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.res_post_norm_block import ResPostNormBlock
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.window_partition import AlwaysShifted, MaskedPadding, PadThenRoll, RollThenPad

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
CUTS = [PadThenRoll, RollThenPad, AlwaysShifted, MaskedPadding]


def block_of(
    dim: int = 32, heads: int = 2, window: int = 4, shift: int = 0, cut: type[PadThenRoll] = PadThenRoll
) -> ResPostNormBlock:
    """A block whose branches weigh as much as their residual, with scales of the heads from about 3 to 50."""
    mixer = CosineWindowAttention(dim, heads, window, shift, cut=cut)
    block = ResPostNormBlock(nn.LayerNorm(dim), mixer, nn.LayerNorm(dim), MLP(dim, 2 * dim + 8))
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=1.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 1.0)
    with torch.no_grad():
        mixer.qk_norm.log_scale.copy_(torch.linspace(1, 4, heads)[:, None, None])
    return block.eval().requires_grad_(False)


def check(block: ResPostNormBlock, grid: Grid, batch: int, dtype: torch.dtype) -> None:
    if refusal(dtype):
        pytest.skip(str(refusal(dtype)))
    dim = block.norm1.normalized_shape[0]
    x, unconverted = torch.randn(batch, grid.tokens, dim).to(RESIDUAL[dtype]), Counter()
    want = block.double()(x.double(), grid) - x  # the branches alone: x itself would hide errors
    plain = block.to(dtype)(x.to(dtype), grid).double() - x
    fast = fuse_post_norm_block(block.float(), dtype, unconverted, ["cpu"])
    assert not unconverted
    assert relative(fast(x, grid).double() - x, want) < max(1.5 * relative(plain, want), 5e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 7), (3, 13), (1, 1)])
@pytest.mark.parametrize("shift", [0, 2])
def test_a_block_gives_the_same_output(shift: int, h: int, w: int, cut: type[PadThenRoll], dtype: torch.dtype) -> None:
    check(block_of(shift=shift, cut=cut), Grid(h, w), 1, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("dim", "heads", "window"), [(60, 6, 8), (36, 2, 3), (100, 1, 2), (18, 3, 5)])
def test_widths_that_fill_no_vector(dim: int, heads: int, window: int, dtype: torch.dtype) -> None:
    check(block_of(dim, heads, window, shift=window // 2), Grid(2 * window, window + 1), 3, dtype)


def test_odd_widths_are_computed_in_fp32_and_named_in_bf16() -> None:
    check(block_of(dim=21, heads=3, shift=1), Grid(7, 5), 2, torch.float32)
    block = block_of(dim=18, heads=6)
    with pytest.raises(NotConverted, match="heads of 3"):
        fuse_cosine_attention(nn.Identity(), block.token_mixer, block.norm1, torch.bfloat16)  # pyright: ignore


def test_queries_and_keys_of_length_zero_attend_by_their_bias() -> None:
    block = block_of()
    mixer: Any = block.token_mixer
    mixer.qkv.linear.weight.zero_()
    mixer.qkv.q_bias.zero_()
    check(block, Grid(5, 6), 2, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_threads_do_not_change_the_output(batch: int, dtype: torch.dtype) -> None:
    if refusal(dtype):
        pytest.skip(str(refusal(dtype)))
    fast = fuse_post_norm_block(block_of(shift=2), dtype, Counter(), ["cpu"])
    x = torch.randn(batch, 70, 32).to(RESIDUAL[dtype])
    assert torch.equal(fast(x, Grid(10, 7)), with_threads(lambda: fast(x, Grid(10, 7))))
    assert torch.equal(fast(x, Grid(10, 7))[:1], fast(x[:1], Grid(10, 7)))


def test_blocks_of_models_are_converted() -> None:
    swin: Any = vitrail.optimize(small("swin v2"), "fp32")
    assert swin.unconverted == {"PostNormPatchMerging has no fused operation": 1}
    restorer: Any = create_model("swin2sr_light_x2", dim=12, depths=(2, 1), num_heads=2, window_size=4)
    restorer: Any = vitrail.optimize(restorer.eval(), "fp32")
    for model, count in ((swin, 4), (restorer, 3)):
        for kind in (FusedCosineAttention, FusedPostNormMLP):
            assert sum(type(module) is kind for module in model.modules()) == count


def test_other_orders_are_not_taken_for_this_one() -> None:
    """A norm before the mixer, none after it, or one over other channels is another function."""
    block, dtype = block_of(), torch.float32
    mixer: Any = block.token_mixer
    mlp: Any = block.channel_mixer
    same, norm = nn.Identity(), nn.LayerNorm(32)
    for before, scale, reason in (
        (norm, norm, "before it is LayerNorm"),
        (same, same, "Identity, not LayerNorm"),
        (same, LayerScale(32), "LayerScale, not LayerNorm"),
        (same, nn.LayerNorm((4, 32)), "not LayerNorm over 32"),
    ):
        with pytest.raises(NotConverted, match=reason):
            fuse_cosine_attention(before, mixer, scale, dtype)
    for before, scale in ((norm, norm), (same, nn.LayerNorm((4, 32)))):
        with pytest.raises(NotConverted, match="its scale is LayerNorm"):
            fuse_mlp(before, mlp, scale, dtype)
    assert type(fuse_mlp(same, mlp, same, dtype)) is FusedMLP
    with pytest.raises(NotConverted, match="scale1 or scale2"):
        block.scale2 = LayerScale(32)
        fuse_post_norm_block(block, dtype, Counter(), ["cpu"])


def test_parts_of_the_projection_are_named() -> None:
    mixer: Any = block_of().token_mixer
    assert unsupported_reason(mixer, "cpu") is None
    mixer.qkv.linear = nn.Linear(32, 96)
    assert "a further bias" in str(unsupported_reason(mixer, "cpu"))
