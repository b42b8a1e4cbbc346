"""Every learning weight is in one group, at the rate of its depth; frozen ones do not move."""

from typing import Any

import pytest
import small_models
import small_texts
import torch

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.training.param_groups import freeze, parameter_groups

SMALL: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"dim": 16, "depth": 3, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {"dim": 12, "depths": (2, 1), "num_heads": (2, 2)},
    "deit_tiny_distilled_patch16_224": {"dim": 16, "depth": 2, "num_heads": 2},
    "poolformer_s12": {},
    "mixer_s32_224": {},
}


def small(name: str) -> Any:
    with torch.device("meta"):
        return create_model(name, num_classes=3, image_size=32, **SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_groups_hold_every_parameter_once(name: str) -> None:
    model = small(name)
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    held = [p for group in groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))


@pytest.mark.parametrize("name", SMALL)
def test_rate_grows_by_one_factor_a_block_up_to_the_head(name: str) -> None:
    model = small(name)
    blocks = sum(len(stage.blocks) for stage in model.backbone.stages)
    scale = {p: group["scale"] for group in parameter_groups(model, 0.1, 0.5) for p in group["params"]}
    assert len(model.layers()) == blocks + 2
    assert {scale[p] for p in model.head.parameters()} | {scale[p] for p in model.backbone.norm.parameters()} == {1.0}
    assert {scale[p] for p in model.backbone.embedding.parameters()} == {0.5 ** (blocks + 1)}
    depth = blocks
    for stage in model.backbone.stages:
        assert {scale[p] for p in stage.entry.parameters()} <= {0.5**depth}
        for block in stage.blocks:
            assert {scale[p] for p in block.parameters()} == {0.5**depth}
            depth -= 1


def test_a_stage_without_blocks_is_a_layer_of_its_own() -> None:
    """A BiT of one bottleneck a stage has entries alone; each counts, and each weight is in one layer."""
    model = create_model("resnetv2_50x1_bit", depths=(1, 2, 1), dim=64, num_classes=3)
    order = model.layers()
    assert len(order) == 1 + 3 + 1
    counted = [p for group in order for module in group.modules for p in module.parameters()]
    assert len(counted) == len({id(p) for p in counted}) == len(list(model.parameters()))


def test_only_matrices_and_kernels_decay() -> None:
    model = small("swin_tiny_patch4_window7_224")
    decay = {p: group["weight_decay"] for group in parameter_groups(model, 0.1, 1.0) for p in group["params"]}
    for name, parameter in model.named_parameters():
        plain = name.endswith(".bias") or "norm" in name or "table" in name or "token" in name.split(".")[-1]
        assert decay[parameter] == (0.0 if plain or parameter.ndim == 1 else 0.1), name


@pytest.mark.parametrize(("what", "frozen"), [("none", 0), ("embedding", 1), ("1", 2), ("2", 3), ("backbone", 4)])
def test_freezing_goes_from_the_pixels_up(what: str, frozen: int) -> None:
    model = small("swin_tiny_patch4_window7_224")
    freeze(model, what)
    parts = [model.backbone.embedding, *model.backbone.stages, model.backbone.norm, model.head]
    learns = [any(p.requires_grad for p in part.parameters()) for part in parts]
    assert learns == [False] * frozen + [True] * (len(parts) - frozen)
    held = [p for group in parameter_groups(model, 0.1, 1.0) for p in group["params"]]
    assert set(held) == {p for p in model.parameters() if p.requires_grad}


def test_more_stages_than_there_are_is_refused() -> None:
    with pytest.raises(VitrailError, match="2 stages"):
        freeze(small("swin_tiny_patch4_window7_224"), "3")


CATALOGUE = {
    **{name: lambda name=name: small_models.small(name) for name in small_models.SMALL},
    **{name: lambda name=name: small_texts.small(name) for name in small_texts.SMALL},
    "swin2sr": lambda: create_model("swin2sr_light_x2", dim=12, depths=(2, 1), num_heads=2, window_size=4),
    "swinir": lambda: create_model("swinir_real_m_x4", dim=12, depths=(2, 1), num_heads=2, window_size=4),
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_layers_of_every_architecture_hold_every_parameter_once(name: str) -> None:
    """Layer decay, freezing and FSDP read `Model.layers()`: none of them may miss a part of a model."""
    model = CATALOGUE[name]()
    layers = model.layers()
    held = [p for group in parameter_groups(model, 0.1, 0.5) for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))
    stages = [layer.stage for layer in layers]
    assert stages == sorted(stages) and stages[0] == 0 and set(stages) == set(range(stages[-1] + 1))
    assert model.head in layers[-1].modules
    frozen = freeze(model, "backbone")
    assert model.head not in frozen
    head = {id(p) for p in model.head.parameters()}
    assert {id(p) for p in model.parameters() if p.requires_grad} == head


def test_a_parameter_outside_every_layer_is_refused() -> None:
    model = small("vit_tiny_patch16_224")
    model.extra = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(VitrailError, match="leaves parameters out, first extra"):
        parameter_groups(model, 0.1, 1.0)
