"""Fused stage of visual tokens: both tokenizers, any size, and parts that it does not compute."""

from typing import Any

import pytest
import torch
from small_models import relative, small  # pyright: ignore[reportMissingImports]
from torch import nn

import vitrail
from vitrail.fused.unsupported import NotConverted
from vitrail.fused.visual_tokens import FusedVisualStage, fuse_visual_stage
from vitrail.native.build import refusal
from vitrail.parts.stages import Stage
from vitrail.parts.visual_tokens import (
    FilterTokenizer,
    KeepTokens,
    NoProjector,
    Projector,
    RecurrentTokenizer,
    TokenStep,
    VisualTransformerBlock,
)

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
NAMES = ("vt_resnet50", "vt_resnet50_filter")
DIM, COUNT = 64, 5


def a_stage() -> Stage:
    """Make a stage of three blocks, with every kind of part."""
    torch.manual_seed(0)
    blocks = [
        VisualTransformerBlock(DIM, KeepTokens(), Projector(DIM, 4)),
        VisualTransformerBlock(DIM, RecurrentTokenizer(DIM), Projector(DIM, 2)),
        VisualTransformerBlock(DIM, FilterTokenizer(DIM, COUNT), NoProjector()),
    ]
    return Stage(blocks, TokenStep(FilterTokenizer(DIM, COUNT))).eval()


@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7)])
def test_a_stage_equals_its_modules(size: tuple[int, int], precision: torch.dtype, error: float) -> None:
    if refusal(precision) is not None:
        pytest.skip(str(refusal(precision)))
    stage, x = a_stage(), torch.randn(3, size[0] * size[1], DIM)
    with torch.inference_mode():
        want, grid = stage(x, vitrail.Grid(*size))
        got, same = fuse_visual_stage(stage, precision)(x, vitrail.Grid(*size))
    assert same == grid and grid.prefix == COUNT and relative(got.float(), want) < error


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_model_is_fused(name: str) -> None:
    model, images = small(f"vt {name}", dim=64), torch.randn(2, 3, 50, 41)
    fast: Any = vitrail.optimize(model, precision="fp32")
    assert fast.unconverted == {} and sum(isinstance(part, FusedVisualStage) for part in fast.modules()) == 1
    with torch.inference_mode():
        assert relative(fast(images), model(images)) < 1e-5


def test_weights_are_copied() -> None:
    stage, x = a_stage(), torch.randn(1, 9, DIM)
    with torch.inference_mode():
        fused = fuse_visual_stage(stage, torch.float32)
        before, _ = fused(x, vitrail.Grid(3, 3))
        for weight in stage.parameters():
            weight.zero_()
        assert torch.equal(fused(x, vitrail.Grid(3, 3))[0], before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"projector": nn.Identity()}, "its projector is Identity"),
        ({"fc1": nn.Linear(DIM, DIM)}, "a linear layer has a bias"),
        ({"fc2": nn.Sequential()}, "its fc2 is Sequential"),
        ({"gate": nn.Identity()}, "unknown part gate"),
    ],
)
def test_unknown_parts_are_reported(change: dict[str, nn.Module], reason: str) -> None:
    stage = a_stage()
    for name, part in change.items():
        setattr(stage.blocks[1], name, part)
    with pytest.raises(NotConverted, match=reason):
        fuse_visual_stage(stage, torch.float32)


def test_unknown_convolutions_are_reported() -> None:
    stage: Any = a_stage()
    stage.blocks[0].projector.k = nn.Conv1d(DIM, DIM, 1, groups=2, bias=False)
    with pytest.raises(NotConverted, match="other groups"):
        fuse_visual_stage(stage, torch.float32)
    stage.blocks[0].projector.k = nn.Conv1d(DIM, DIM, 3, padding=1, groups=4, bias=False)
    with pytest.raises(NotConverted, match="another window"):
        fuse_visual_stage(stage, torch.float32)


def test_hooks_are_reported() -> None:
    stage = a_stage()
    stage.blocks[0].register_forward_hook(lambda *_: None)
    with pytest.raises(NotConverted, match="hooks"):
        fuse_visual_stage(stage, torch.float32)
