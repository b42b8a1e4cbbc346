"""The order of a Twins' blocks, and the properties of its positions."""

import pytest
import torch
from small_models import small

from vitrail.grid import Grid
from vitrail.parts.blocks import Block
from vitrail.parts.peg import PEG
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention


def mixers(stage) -> list[type]:
    return [type(block.token_mixer if isinstance(block, Block) else block) for block in stage.blocks]


def test_local_and_global_attention_alternate_and_the_peg_follows_the_first_block():
    for stage in small("twins svt", depths=(3, 4)).backbone.stages:
        local = [WindowAttention, PEG, SpatialReductionAttention, WindowAttention, SpatialReductionAttention]
        assert mixers(stage) == local[: len(stage.blocks)]
    for stage in small("twins pcpvt", depths=(3, 2)).backbone.stages:
        assert mixers(stage) == [SpatialReductionAttention, PEG, *[SpatialReductionAttention] * (len(stage.blocks) - 2)]


@pytest.mark.parametrize("shift", [1, 3])
def test_a_peg_is_translation_equivariant_away_from_the_border(shift):
    peg = small("twins svt").backbone.stages[0].blocks[1]
    x, grid = torch.randn(1, 16 * 16, 8), Grid(16, 16)
    moved = grid.cells(x).roll((shift, shift), dims=(1, 2)).flatten(1, 2)
    inner = slice(shift + 1, -1)
    got, want = (grid.cells(y) for y in (peg(moved, grid), peg(x, grid)))
    torch.testing.assert_close(got[:, inner, inner], want.roll((shift, shift), dims=(1, 2))[:, inner, inner])
    assert not torch.allclose(got, want.roll((shift, shift), dims=(1, 2)))  # zeros around the map mark its border
