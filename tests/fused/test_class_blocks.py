"""Fused class attention and the blocks around it: parity with their modules, and parts that they do not compute."""

from collections import Counter
from typing import Any

import pytest
import torch
from small_models import relative, small  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused.class_blocks import fuse_class_block, fuse_prefix_block
from vitrail.fused.unsupported import NotConverted
from vitrail.native.build import refusal
from vitrail.parts.blocks import Block, PrefixBlock
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.regularisation import LayerScale
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.xcit_blocks import ClassBlock, PrefixNormClassBlock

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
FUSE: dict[type[Block], Any] = {
    PrefixBlock: fuse_prefix_block,
    ClassBlock: fuse_class_block,
    PrefixNormClassBlock: fuse_class_block,
}
DIM = 24


def a_block(kind: type[Block], mixer: nn.Module | None = None, scaled: bool = True) -> Any:
    """Make a block whose norms and scales have values of their own."""
    torch.manual_seed(0)
    scales = [LayerScale(DIM, 1.0) if scaled else nn.Identity() for _ in range(2)]
    norms = [nn.LayerNorm(DIM, eps=1e-6) for _ in range(2)]
    block = kind(norms[0], mixer or ClassAttention(DIM, 3), norms[1], MLP(DIM, 40), 0.1, *scales).eval()
    for weight in block.parameters():
        nn.init.uniform_(weight, -0.5, 1.0)
    return block.requires_grad_(False)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("kind", FUSE)
def test_a_block_equals_its_module(
    kind: type[Block], precision: torch.dtype, error: float, prefix: int, scaled: bool
) -> None:
    if refusal(precision) is not None:
        pytest.skip(str(refusal(precision)))
    block, grid = a_block(kind, scaled=scaled), vitrail.Grid(3, 5, prefix=prefix)
    x, unconverted = torch.randn(2, grid.tokens, DIM), Counter[str]()
    fused = FUSE[kind](block, precision, unconverted, ("cpu",))
    assert not unconverted
    kept = x.clone()
    assert relative(fused(x.to(precision), grid).float(), block(x, grid)) < error
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", ["cait", "xcit", "xcit nano"])
def test_a_model_has_no_class_block_in_pytorch(name: str) -> None:
    model, images = small(name), torch.randn(2, 3, 48, 80)
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert not any("lass" in reason for reason in fast.unconverted)
    with torch.inference_mode():
        assert relative(fast.features(images).tokens, model.features(images).tokens) < 1e-5


@pytest.mark.parametrize("kind", FUSE)
def test_other_token_mixers_are_reported(kind: type[Block]) -> None:
    block = a_block(kind, SelfAttention(DIM, 3))
    with pytest.raises(NotConverted, match="its token_mixer is SelfAttention"):
        FUSE[kind](block, torch.float32, Counter(), ("cpu",))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"norm2": nn.Identity()}, "no LayerNorms"),
        ({"scale1": nn.Linear(DIM, DIM)}, "its scale1 is Linear"),
        ({"gate": nn.Identity()}, "unknown part gate"),
    ],
)
def test_unknown_parts_of_a_class_block_are_reported(change: dict[str, nn.Module], reason: str) -> None:
    block = a_block(ClassBlock)
    for name, part in change.items():
        setattr(block, name, part)
    with pytest.raises(NotConverted, match=reason):
        fuse_class_block(block, torch.float32, Counter(), ("cpu",))


def test_odd_heads_are_reported_in_bf16() -> None:
    if refusal(torch.bfloat16) is not None:
        pytest.skip(str(refusal(torch.bfloat16)))
    block, unconverted = a_block(PrefixBlock, ClassAttention(DIM, 8)), Counter[str]()
    fuse_prefix_block(block, torch.bfloat16, unconverted, ("cpu",))
    assert unconverted == {"token mixer: bf16 needs even widths, got 24 and 3": 1}
