"""Mixers other than attention over all tokens: all parts are fused, with equal outputs."""

from collections import Counter
from typing import Any

import pytest
import torch
from small_models import relative, small
from torch import nn

import vitrail
from closeness import with_threads
from vitrail.errors import VitrailError
from vitrail.fused.activated_mlp import FusedActivatedMLP
from vitrail.fused.blocks import fuse_block
from vitrail.fused.convolution import FusedConvMerging, FusedPreNormConvMerging, FusedTokenizer
from vitrail.fused.depthwise import FusedConvNeXtBlock, FusedDepthwiseBranch, FusedPEG
from vitrail.fused.experts import FusedMixtureOfExperts
from vitrail.fused.neighborhood import FusedNeighborhood, fuse_neighborhood
from vitrail.fused.pooling import FusedImageMLP, FusedPooling, fuse_channel_mlp, fuse_pooling
from vitrail.fused.res_scale import FusedResScaleBlock
from vitrail.fused.spatial_reduction import FusedNormStep, FusedSpatialReduction
from vitrail.fused.table import unsupported_reason
from vitrail.fused.token_mlp import FusedTokenMLP, fuse_token_mlp
from vitrail.fused.unsupported import NotConverted
from vitrail.grid import Grid
from vitrail.native.build import refusal
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.threads import shared_evenly
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.norms import TokenGroupNorm
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.token_mlp import TokenMLP

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

CONVERSIONS = {
    "nat": (FusedNeighborhood, FusedTokenizer, FusedConvMerging),
    "nat scaled": (FusedNeighborhood, FusedTokenizer, FusedConvMerging),
    "dinat": (FusedNeighborhood, FusedTokenizer, FusedConvMerging),
    "dinat_s": (FusedNeighborhood,),
    "poolformer": (FusedPooling, FusedImageMLP, FusedTokenizer, FusedConvMerging),
    "poolformer timm": (FusedPooling, FusedImageMLP, FusedTokenizer, FusedConvMerging),
    "mixer": (FusedTokenMLP,),
    "pvt v2": (FusedSpatialReduction, FusedDepthwiseBranch, FusedNormStep),
    "pvt v2 linear": (FusedSpatialReduction, FusedDepthwiseBranch),
    "twins svt": (FusedSpatialReduction, FusedPEG),
    "cpvt": (FusedPEG,),
    "convnext": (FusedConvNeXtBlock, FusedPreNormConvMerging),
    "convnextv2": (FusedConvNeXtBlock,),
    "vmoe": (FusedMixtureOfExperts, FusedActivatedMLP),
    "caformer": (FusedDepthwiseBranch, FusedActivatedMLP, FusedResScaleBlock),
}
BFLOAT16 = refusal(torch.bfloat16)
PRECISIONS = ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(BFLOAT16 is not None, reason=str(BFLOAT16)))]


def blocks() -> dict[str, tuple[Block, Grid]]:
    """Make a block of each kind whose branches weigh as much as their residual."""
    made = {
        "neighborhood": (_block(nn.LayerNorm(32), NeighborhoodAttention(32, 2, 7), nn.LayerNorm(32)), Grid(9, 12)),
        "dilated": (_block(nn.LayerNorm(32), NeighborhoodAttention(32, 4, 3, 3), nn.LayerNorm(32)), Grid(11, 9)),
        "padded": (_block(nn.LayerNorm(32), NeighborhoodAttention(32, 2, 5, 2), nn.LayerNorm(32)), Grid(4, 12)),
        "pooling": (_block(TokenGroupNorm(1, 32), Pooling(), TokenGroupNorm(1, 32)), Grid(9, 12)),
        "token mlp": (_block(nn.LayerNorm(32), TokenMLP(Grid(5, 3), 20), nn.LayerNorm(32), scaled=False), Grid(5, 3)),
    }
    for block, _ in made.values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=1.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 1.0)
    return made


def _block(norm1: nn.Module, mixer: nn.Module, norm2: nn.Module, scaled: bool = True) -> Block:
    scales = [LayerScale(32), LayerScale(32)] if scaled else [None, None]
    return Block(norm1, mixer, norm2, MLP(32, 80), scale1=scales[0], scale2=scales[1]).eval().requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["neighborhood", "dilated", "padded", "pooling", "token mlp"])
def test_a_block_gives_the_same_output(kind: str, dtype: torch.dtype) -> None:
    if refusal(dtype):
        pytest.skip(str(refusal(dtype)))
    block, grid = blocks()[kind]
    x, unconverted = torch.randn(3, grid.tokens, 32).to(RESIDUAL[dtype]), Counter()
    want = block.double()(x.double(), grid) - x  # the branches alone: x itself would hide errors
    plain = block.to(dtype)(x.to(dtype), grid).double() - x
    fast = fuse_block(block.float(), dtype, unconverted, ["cpu"])
    got = fast(x, grid).double() - x
    assert not unconverted
    assert relative(got, want) < max(relative(plain, want), 3e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["neighborhood", "dilated", "padded"])
def test_one_group_and_many_groups_agree(kind: str, dtype: torch.dtype) -> None:
    if refusal(dtype):
        pytest.skip(str(refusal(dtype)))
    block, grid = blocks()[kind]
    fast = fuse_neighborhood(block.norm1, block.token_mixer, block.scale1, dtype)  # pyright: ignore[reportArgumentType]
    x = torch.randn(3, grid.tokens, 32).to(RESIDUAL[dtype])
    want = fast(x, grid)
    torch.set_num_threads(2)
    try:
        assert [shared_evenly(batch) for batch in (1, 2, 3)] == [False, True, False]
        for batch in (1, 2, 3):
            assert torch.equal(fast(x[:batch], grid), want[:batch])
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["pvt v2", "caformer", "convit"])
def test_an_image_for_two_threads_is_computed_layer_by_layer(name: str) -> None:
    """Branches in one call share images between threads; one image would leave a thread idle."""
    model, images = small(name), torch.randn(1, 3, 70, 90)
    fast: Any = vitrail.optimize(model, precision="fp32")
    with torch.inference_mode():
        want = model(images)
        apart = with_threads(lambda: (shared_evenly(1), fast(images)), 2)
        assert not apart[0] and relative(apart[1], want) < 1e-5 and relative(fast(images), want) < 1e-5


@pytest.mark.parametrize("name", CONVERSIONS)
def test_every_mixer_is_converted(name: str) -> None:
    fast: Any = vitrail.optimize(small(name), precision="fp32")
    assert fast.unconverted == {}
    for form in CONVERSIONS[name]:
        assert any(isinstance(module, form) for module in fast.modules()), form
    plain = [type(m).__name__ for m in fast.modules() if isinstance(m, nn.Linear | Block | TokenMLP | Pooling)]
    assert plain == []


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [name for name in CONVERSIONS if name != "mixer"])
def test_any_size_one_after_the_other(name: str, precision: str) -> None:
    model = small(name)
    fast = vitrail.optimize(model, precision=precision)  # pyright: ignore[reportArgumentType]
    with torch.inference_mode():
        for size in ((64, 64), (17, 90), (100, 36), (64, 64)):
            images = torch.randn(2, 3, *size)
            want, got = model.features(images), fast.features(images)
            assert got.grid == want.grid
            assert relative(got.tokens.float(), want.tokens) < {"fp32": 1e-5, "bf16": 3e-2}[precision]


def test_bias_cache_is_bounded() -> None:
    fast = vitrail.optimize(small("nat"), precision="fp32")
    with torch.inference_mode():
        for side in range(32, 80, 4):
            fast(torch.zeros(1, 3, side, 32))
    assert max(len(m.biases) for m in fast.modules() if isinstance(m, FusedNeighborhood)) == 8


def test_images_that_do_not_fit_get_the_same_message() -> None:
    for name, size in (("poolformer", 2), ("mixer", 96)):
        model, images = small(name), torch.zeros(1, 3, size, size)
        with pytest.raises(VitrailError) as plain:
            model(images)
        with pytest.raises(VitrailError) as fast:
            vitrail.optimize(model, precision="fp32")(images)
        assert str(fast.value) == str(plain.value)


def test_unsupported_mixers_are_reported() -> None:
    near, pool, mlp = NeighborhoodAttention(8, 2, 3), Pooling(), MLP(8, 16)
    tokens = TokenMLP(Grid(2, 2), 4)
    same, layer, double = nn.Identity(), nn.LayerNorm(8), nn.Dropout(0.5)
    for fuse, arguments, reason in (
        (fuse_neighborhood, (TokenGroupNorm(1, 8), near, same), "TokenGroupNorm"),
        (fuse_neighborhood, (layer, near, double), "Dropout"),
        (fuse_pooling, (layer, pool, same), "LayerNorm"),
        (fuse_pooling, (TokenGroupNorm(2, 8), pool, same), "one group"),
        (fuse_pooling, (TokenGroupNorm(1, 8), pool, double), "Dropout"),
        (fuse_channel_mlp, (TokenGroupNorm(1, 8), mlp, double), "Dropout"),
        (fuse_token_mlp, (TokenGroupNorm(1, 8), tokens, same), "TokenGroupNorm"),
        (fuse_token_mlp, (layer, tokens, LayerScale(8)), "LayerScale"),
    ):
        with pytest.raises(NotConverted, match=reason):
            fuse(*arguments, torch.float32)
    with pytest.raises(NotConverted, match="even head width, got 3"):
        fuse_neighborhood(nn.LayerNorm(6), NeighborhoodAttention(6, 2, 3), same, torch.bfloat16)
    mlp.act = tokens.mlp.act = nn.ReLU()  # pyright: ignore[reportAttributeAccessIssue]
    assert unsupported_reason(mlp, "cpu") == unsupported_reason(tokens, "cpu") == "its act is ReLU"
    mlp.act = nn.GELU(approximate="tanh")
    assert "not the exact GELU" in str(unsupported_reason(mlp, "train")) and unsupported_reason(mlp, "cpu") is None
