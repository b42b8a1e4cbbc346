"""Quick blocks: the same model to everyone who looks, the same step to within rounding."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vitrail.fused.train_blocks import FusedTrainBlock, branch_of, fuse_for_training
from vitrail.models import create_model
from vitrail.native.build import refusal
from vitrail.parts.blocks import Block
from vitrail.parts.regularisation import DropPath
from vitrail.training.host_memory import disable_malloc_trim

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
    """Return a model, its quick form, and pictures."""
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
def test_a_step_is_the_plain_one(name):
    plain, quick, images = pair(name, drop_path=0.0)
    (loss, wanted), (got, gradients) = step(plain.train(), images, False), step(quick.train(), images, False)
    assert got == pytest.approx(loss, rel=1e-5) and gradients.keys() == wanted.keys()
    size = max(value.abs().max().item() for value in wanted.values())
    for key, value in gradients.items():
        torch.testing.assert_close(value, wanted[key], rtol=2e-4, atol=2e-6 * size, msg=key)


@pytest.mark.parametrize("name", ["swin", "vit", "dinat"])
def test_a_step_in_bf16_is_as_near_to_fp32_as_the_plain_one(name):
    if refusal(torch.bfloat16):
        pytest.skip(str(refusal(torch.bfloat16)))
    plain, quick, images = pair(name, drop_path=0.0)
    _, exact = step(deepcopy(plain).train(), images, False)
    (_, rough), (_, gradients) = step(plain.train(), images, True), step(quick.train(), images, True)

    def error(found: dict[str, Tensor]) -> float:
        return sum((found[key] - value).square().sum().item() for key, value in exact.items()) ** 0.5

    assert error(gradients) < 1.2 * error(rough)


@pytest.mark.parametrize("name", ["swin", "nat"])
def test_it_learns_with_dropped_paths_as_the_plain_one(name):
    plain, quick, images = pair(name, drop_path=0.5)
    (loss, wanted), (got, gradients) = step(plain.train(), images, False), step(quick.train(), images, False)
    assert got == pytest.approx(loss, rel=1e-5)
    for key, value in gradients.items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-3, atol=1e-5, msg=key)


@each
def test_to_everyone_else_it_is_the_same_model(name):
    plain, quick, images = pair(name)
    assert list(quick.state_dict()) == list(plain.state_dict())
    assert [key for key, _ in quick.named_parameters()] == [key for key, _ in plain.named_parameters()]
    quick.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(quick.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-5)
    copied = deepcopy(quick)
    assert any(type(module) is FusedTrainBlock for module in copied.modules())
    assert not any(type(module) is Block for module in quick.modules())


def test_a_quick_block_takes_the_modules_themselves():
    model = create_model("vit_tiny_patch16_224", depth=1, image_size=32)
    block: Any = model.backbone.stages[0].blocks[0]
    weight = block.channel_mixer.fc1.weight
    block.eval()
    fuse_for_training(model)
    quick: Any = model.backbone.stages[0].blocks[0]
    assert quick.channel_mixer.fc1.weight is weight and not quick.training
    assert fuse_for_training(model) is model and model.backbone.stages[0].blocks[0] is quick  # nothing is done twice


def test_who_watches_a_part_sees_it_called():
    _, quick, images = pair("swin")
    quick.eval()
    seen: list[torch.Size] = []
    mixer: Any = quick.backbone.stages[0].blocks[1].token_mixer
    assert branch_of(nn.LayerNorm(32), mixer, nn.Identity()) is not None
    handle = mixer.attend.register_forward_hook(lambda module, given, answer: seen.append(answer.shape))
    assert branch_of(nn.LayerNorm(32), mixer, nn.Identity()) is None
    before = quick(images)
    assert seen == [(2, 225, 32)]
    handle.remove()
    torch.testing.assert_close(quick(images), before, rtol=1e-4, atol=1e-5)
    assert len(seen) == 1


def test_it_is_exported_the_plain_way():
    _, quick, images = pair("swin")
    program = torch.export.export(quick.eval(), (images,))
    torch.testing.assert_close(program.module()(images), quick(images), rtol=1e-4, atol=1e-5)


def test_factors_are_drawn_as_paths_are_dropped():
    drop, x = DropPath(0.4).train(), torch.ones(64, 3, 2)
    torch.manual_seed(5)
    dropped = drop(x)
    torch.manual_seed(5)
    keep = drop.draw(x)
    assert keep is not None and torch.equal(dropped, keep[:, None, None] * x)
    assert set(keep.tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert drop.eval().draw(x) is None and DropPath(0.0).train().draw(x) is None


def test_kept_memory_is_asked_of_the_c_library_alone(monkeypatch):
    said: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, what: int, value: int) -> int:
            said.append((what, value))
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    assert (
        disable_malloc_trim() and [what for what, _ in said] == [-3, -1] and min(value for _, value in said) > 1 << 30
    )
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # as musl
    assert not disable_malloc_trim()
