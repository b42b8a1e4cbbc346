"""Fused block of TNT: both projections, both streams, and parts that it does not compute."""

from collections import Counter
from typing import Any

import pytest
import torch
from small_models import relative, small  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused.inner_outer import FusedInnerOuterBlock, fuse_inner_outer_block
from vitrail.fused.unsupported import NotConverted
from vitrail.native.build import refusal
from vitrail.native.dtypes import RESIDUAL
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.visual_words import InnerOuterBlock, SentenceProjection, WordNormProjection

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
WORDS, INNER, OUTER = 9, 12, 20
PROJECTIONS = {
    "sentence": lambda: SentenceProjection(WORDS, INNER, OUTER),
    "word norm": lambda: WordNormProjection(WORDS, INNER, OUTER),
}


def a_block(project: nn.Module) -> Any:
    """Make a block whose norms have values of their own."""
    torch.manual_seed(0)
    inner, outer = (
        Block(nn.LayerNorm(dim), SelfAttention(dim, 2), nn.LayerNorm(dim), MLP(dim, 2 * dim)) for dim in (INNER, OUTER)
    )
    block = InnerOuterBlock(inner, project, outer).eval()
    for weight in block.parameters():
        nn.init.uniform_(weight, -0.5, 0.7)
    return block.requires_grad_(False)


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_block_equals_its_module(name: str, precision: torch.dtype, error: float, prefix: int) -> None:
    if refusal(precision) is not None:
        pytest.skip(str(refusal(precision)))
    block, grid = a_block(PROJECTIONS[name]()), vitrail.Grid(2, 3, prefix=prefix)
    words, x, unconverted = torch.randn(12, WORDS, INNER), torch.randn(2, grid.tokens, OUTER), Counter[str]()
    want = block(words, x, grid)
    fused = fuse_inner_outer_block(block, precision, unconverted, ("cpu",))
    assert not unconverted
    residual = RESIDUAL[precision]
    got = fused(words.to(residual), x.to(residual), grid)
    assert all(relative(a.float(), b) < error for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("name", ["tnt", "tnt legacy"])
def test_all_blocks_of_a_model_are_fused(name: str) -> None:
    model, images = small(name), torch.randn(2, 3, 40, 70)
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert sum(isinstance(part, FusedInnerOuterBlock) for part in fast.modules()) == len(
        model.backbone.stages[0].blocks
    )
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"project": nn.Linear(INNER, OUTER)}, "its project is Linear"),
        ({"inner": nn.Identity()}, "Identity and Block"),
        ({"gate": nn.Identity()}, "its parts are inner, project, outer, gate"),
    ],
)
def test_unknown_parts_are_reported(change: dict[str, nn.Module], reason: str) -> None:
    block = a_block(PROJECTIONS["sentence"]())
    for name, part in change.items():
        setattr(block, name, part)
    with pytest.raises(NotConverted, match=reason):
        fuse_inner_outer_block(block, torch.float32, Counter(), ("cpu",))


def test_other_norms_of_a_projection_are_reported() -> None:
    block = a_block(PROJECTIONS["sentence"]())
    block.project.norm2 = nn.Identity()
    with pytest.raises(NotConverted, match="its norm2 is Identity"):
        fuse_inner_outer_block(block, torch.float32, Counter(), ("cpu",))
