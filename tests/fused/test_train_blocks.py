"""Fused training blocks: the same weights and names, the same step up to rounding."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vitrail.fused.train_blocks import FusedTrainBlock, fuse_for_training, train_op
from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.native.build import refusal
from vitrail.parts.blocks import Block
from vitrail.parts.regularisation import DropPath

SWIN = {"dim": 32, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 7}
NAT = {"dim": 32, "depths": (1, 1), "num_heads": (2, 4), "num_classes": 7}
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "swin": ("swin_tiny_patch4_window7_224", SWIN, 60),  # no multiple of the window
    "swin, masked": ("swin_tiny_patch4_window7_224", {**SWIN, "edge": "masked"}, 60),
    "vit": ("vit_tiny_patch16_224", {"dim": 32, "depth": 2, "num_heads": 2, "num_classes": 7, "image_size": 48}, 48),
    "deit": ("deit_tiny_distilled_patch16_224", {"dim": 32, "depth": 2, "num_heads": 2, "image_size": 48}, 48),
    "poolformer": ("poolformer_s12", {"num_classes": 7}, 64),  # of these no branch has a form
    "nat": ("nat_mini", NAT, 50),  # odd, and padded
    "dinat": ("dinat_mini", {**NAT, "depths": (2, 2), "dilations": (2, 1)}, 64),
}
each = pytest.mark.parametrize("name", MODELS)


def pair(name: str, **changes: Any) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a model, its fused form, and images."""
    variant, config, side = MODELS[name]
    torch.manual_seed(0)
    plain = create_model(variant, **config, **changes)
    return plain, fuse_for_training(deepcopy(plain)), torch.randn(2, 3, side, side)


def step(model: nn.Module, images: Tensor, bf16: bool) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(1)  # for dropped paths
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = cross_entropy(model(images).float(), torch.arange(len(images)))
    loss.backward()
    return loss.item(), {key: value.grad for key, value in model.named_parameters() if value.grad is not None}


@each
def test_a_step_equals_the_plain_step(name):
    plain, fused, images = pair(name, drop_path=0.0)
    (loss, wanted), (got, gradients) = step(plain.train(), images, False), step(fused.train(), images, False)
    assert got == pytest.approx(loss, rel=1e-5) and gradients.keys() == wanted.keys()
    size = max(value.abs().max().item() for value in wanted.values())
    for key, value in gradients.items():
        torch.testing.assert_close(value, wanted[key], rtol=2e-4, atol=2e-6 * size, msg=key)


@pytest.mark.parametrize("name", ["swin", "vit", "dinat"])
def test_a_step_in_bf16_is_as_near_to_fp32_as_the_plain_one(name):
    if refusal(torch.bfloat16):
        pytest.skip(str(refusal(torch.bfloat16)))
    plain, fused, images = pair(name, drop_path=0.0)
    _, exact = step(deepcopy(plain).train(), images, False)
    (_, rough), (_, gradients) = step(plain.train(), images, True), step(fused.train(), images, True)

    def error(found: dict[str, Tensor]) -> float:
        return sum((found[key] - value).square().sum().item() for key, value in exact.items()) ** 0.5

    assert error(gradients) < 1.2 * error(rough)


@pytest.mark.parametrize("name", ["swin", "nat"])
def test_it_learns_with_dropped_paths_as_the_plain_one(name):
    plain, fused, images = pair(name, drop_path=0.5)
    (loss, wanted), (got, gradients) = step(plain.train(), images, False), step(fused.train(), images, False)
    assert got == pytest.approx(loss, rel=1e-5)
    for key, value in gradients.items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-3, atol=1e-5, msg=key)


@each
def test_fused_blocks_do_not_change_the_public_model(name):
    plain, fused, images = pair(name)
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert [key for key, _ in fused.named_parameters()] == [key for key, _ in plain.named_parameters()]
    fused.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-5)
    copied = deepcopy(fused)
    assert any(type(module) is FusedTrainBlock for module in copied.modules())
    assert not any(type(module) is Block for module in fused.modules())


def test_a_fused_block_shares_the_parameters():
    model = create_model("vit_tiny_patch16_224", depth=1, image_size=32)
    block: Any = model.backbone.stages[0].blocks[0]
    weight = block.channel_mixer.fc1.weight
    block.eval()
    fuse_for_training(model)
    fused: Any = model.backbone.stages[0].blocks[0]
    assert fused.channel_mixer.fc1.weight is weight and not fused.training
    assert fuse_for_training(model) is model and model.backbone.stages[0].blocks[0] is fused  # nothing is done twice


def test_hooks_of_submodules_are_called():
    _, fused, images = pair("swin")
    fused.eval()
    seen: list[torch.Size] = []
    mixer: Any = fused.backbone.stages[0].blocks[1].token_mixer
    assert train_op(nn.LayerNorm(32), mixer, nn.Identity(), Grid(15, 15)) is not None
    handle = mixer.attend.register_forward_hook(lambda module, given, answer: seen.append(answer.shape))
    assert train_op(nn.LayerNorm(32), mixer, nn.Identity(), Grid(15, 15)) is None
    before = fused(images)
    assert seen == [(2, 225, 32)]
    handle.remove()
    torch.testing.assert_close(fused(images), before, rtol=1e-4, atol=1e-5)
    assert len(seen) == 1


def test_export_uses_the_plain_blocks():
    _, fused, images = pair("swin")
    program = torch.export.export(fused.eval(), (images,))
    torch.testing.assert_close(program.module()(images), fused(images), rtol=1e-4, atol=1e-5)


def test_factors_are_drawn_as_paths_are_dropped():
    drop, x = DropPath(0.4).train(), torch.ones(64, 3, 2)
    torch.manual_seed(5)
    dropped = drop(x)
    torch.manual_seed(5)
    keep = drop.draw(x)
    assert keep is not None and torch.equal(dropped, keep[:, None, None] * x)
    assert set(keep.tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert drop.eval().draw(x) is None and DropPath(0.0).train().draw(x) is None
