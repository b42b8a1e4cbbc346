"""Every published variant has the published parameters and multiply-adds."""

from importlib import import_module
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitrail.models import FAMILIES, create_model, list_models
from vitrail.models.published import PUBLISHED
from vitrail.parts.token_mixers.window_attention import WindowAttend
from vitrail.weights.detect import trunk_config
from vitrail.weights.infer_config import has_sizes_of


def _module(family: str) -> ModuleType:
    return import_module(f"vitrail.models.{family}")


def count(name: str, size: int, **overrides) -> tuple[int, float]:
    with torch.device("meta"), torch.no_grad():
        model = create_model(name, **overrides).eval().requires_grad_(False)
        inputs = [torch.empty(1, getattr(model.config, "in_channels", 3), size, size)]
        if PUBLISHED[name].task in ("points", "parts"):
            inputs = [torch.empty(1, size, model.config.in_channels)]
        elif PUBLISHED[name].tokens:
            inputs = [torch.empty(1, size, dtype=torch.long)] * (2 if hasattr(model, "encode") else 1)
        with FlopCounterMode(display=False) as counter:
            getattr(model, "dense", model)(*inputs)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2e9


def test_the_ledger_has_a_line_for_each_variant_in_the_order_of_the_catalogue():
    assert list(PUBLISHED) == list_models() == [name for family in FAMILIES for name in _module(family).VARIANTS]


def test_the_ledger_has_family_and_size_of_the_architectures():
    for family in FAMILIES:
        for name, config in _module(family).VARIANTS.items():
            figures = PUBLISHED[name]
            assert figures.family == family
            assert (figures.pixels is None) == (figures.tokens is not None)
            assert figures.task != "classify" or hasattr(config, "preprocess")
            assert figures.task != "classify" or figures.pixels == config.preprocess.size


SMALLEST = {
    min(
        (name for name in PUBLISHED if PUBLISHED[name].family == family), key=lambda name: PUBLISHED[name].multiply_adds
    )
    for family in FAMILIES
}
"""The cheapest variant of each family; the others have the same parts, so their cost is counted by slow tests."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_size(name):
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name].parameters
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert has_sizes_of(shapes, trunk_config(name)), "a checkpoint of it would not be recognised"


@pytest.mark.parametrize(
    "name", [name if name in SMALLEST else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]
)
def test_cost(name):
    _, gmacs = count(name, PUBLISHED[name].tokens or PUBLISHED[name].pixels)
    assert round(gmacs * 1e9) == PUBLISHED[name].multiply_adds


@pytest.mark.parametrize(("name", "gmacs"), [("resnetv2_50x1_bit", 4.089), ("resnetv2_152x2_bit", 45.814)])
def test_cost_at_another_size(name, gmacs):
    assert round(count(name, 224)[1], 3) == gmacs


@pytest.mark.parametrize(("name", "gmacs"), [("vt_resnet50", 3.41), ("vt_resnet101", 7.13)])
def test_vt_resnets_of_eight_tokens_cost_what_the_paper_says(name, gmacs):
    assert round(count(name, 224, tokens=8)[1], 2) == gmacs


def test_a_backbone_without_a_head():
    assert count("vit_huge_patch14_224", 224, num_classes=0)[0] == 630_764_800


# mmpretrain's table leaves the products of window attention out; without them ours gives its figures.
@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        ("swin_tiny_patch4_window7_224", 4.36),
        ("swin_small_patch4_window7_224", 8.52),
        ("swin_base_patch4_window7_224", 15.14),
    ],
)
def test_attention_products_explain_the_difference_to_other_tables(name, gmacs, monkeypatch):
    monkeypatch.setattr(WindowAttend, "forward", lambda self, qkv, *_: qkv.chunk(3, dim=-1)[2])
    assert count(name, 224)[1] == pytest.approx(gmacs, rel=3e-3)


def test_a_wrong_number_is_detected():
    assert count("swin_tiny_patch4_window7_224", 224, depths=(2, 2, 6, 3))[0] != 28_288_354
