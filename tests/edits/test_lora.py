"""LoRA: the formula, the identity at the start, merging, and training of the adapters alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import small_texts
import torch
from torch import nn

import vitrail
from vitrail.cli import main
from vitrail.edits.edit import apply_edits
from vitrail.edits.lora import LoRA, adapters, lora_of, merge_lora
from vitrail.errors import VitrailError
from vitrail.inference.model_loading import find_model
from vitrail.layouts import TokenSequence
from vitrail.models import create_model
from vitrail.parts.lora_linear import LoRALinear
from vitrail.preprocess import Preprocess
from vitrail.training.config import TrainConfig
from vitrail.training.reporters import NullReporter
from vitrail.training.signals import Interrupted, StopRequest
from vitrail.training.train import train
from vitrail.weights.adapters import load_adapters

SIZES = dict(dim=16, depth=2, num_heads=2, patch_size=4, in_channels=1, num_classes=10)
GREY = Preprocess(size=8, crop=1.0, mean=(0.5,), std=(0.5,))


def stirred(model: nn.Module) -> nn.Module:
    """Give every adapter a change that is not zero."""
    for layer in adapters(model).values():
        nn.init.normal_(layer.b, std=0.2)
    return model


def test_the_layer_is_its_formula() -> None:
    layer = LoRALinear(nn.Linear(5, 3), rank=2, alpha=6.0)
    nn.init.normal_(layer.b)
    x = torch.randn(4, 5)
    by_hand = torch.stack([layer.base.weight @ row + layer.base.bias + 3.0 * (layer.b @ (layer.a @ row)) for row in x])
    torch.testing.assert_close(layer(x), by_hand)
    torch.testing.assert_close(layer.merged()(x), by_hand, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.merged().weight, layer.weight)


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("vit_tiny_patch16_224", {"dim": 24, "depth": 2, "num_heads": 3, "image_size": 32}),
        ("swin_tiny_patch4_window7_224", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "image_size": 56}),
        ("swinv2_tiny_window8_256", {"dim": 8, "depths": (2,), "num_heads": (2,), "image_size": 60, "window_size": 4}),
        ("mixer_s32_224", {"image_size": 64, "depth": 1}),
    ],
)
def test_adapters_start_as_the_identity_and_merged_equals_unmerged(variant: str, sizes: dict) -> None:
    model = create_model(variant, **sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights silence branches whose norms begin at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    images = torch.rand(2, 3, *[sizes["image_size"]] * 2)
    with torch.inference_mode():
        before = model(images)
    apply_edits(model, lora_of(model, rank=2, alpha=4.0))
    with torch.inference_mode():
        assert torch.equal(model(images), before)
        changed = stirred(model)(images)
        assert not torch.equal(changed, before)
        merged = merge_lora(model)(images)
    scale = changed.abs().max().item()
    torch.testing.assert_close(merged / scale, changed / scale, atol=1e-6, rtol=0)
    assert not model.edits and not adapters(model)


def test_models_of_text_take_adapters() -> None:
    model = small_texts.small("bert classes")
    ids, layout = torch.randint(1, 50, (2, 9)), TokenSequence(9)
    with torch.inference_mode():
        before = model(ids, layout)
        apply_edits(model, lora_of(model, rank=2, alpha=4.0))
        assert torch.equal(model(ids, layout), before)
        changed = stirred(model)(ids, layout)
        torch.testing.assert_close(merge_lora(model)(ids, layout), changed, atol=1e-5, rtol=1e-5)


def test_an_optimized_model_takes_adapters_as_they_are() -> None:
    model = create_model("vit_tiny_patch16_224", dim=24, depth=2, num_heads=3, image_size=32, num_classes=5).eval()
    stirred(apply_edits(model, lora_of(model, rank=2, alpha=4.0)))
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(vitrail.optimize(model, "fp32")(images), model(images), atol=1e-4, rtol=1e-4)


def test_targets_are_named_by_their_last_part() -> None:
    model = create_model("vit_tiny_patch16_224", depth=1)
    assert [name.rpartition(".")[2] for name in lora_of(model, 4, 8.0, ["qkv", "proj"]).ranks] == ["qkv", "proj"]
    with pytest.raises(VitrailError, match="Did you mean: qkv"):
        lora_of(model, 4, 8.0, ["qvk"])
    with pytest.raises(VitrailError, match="only plain linear"):
        apply_edits(model, LoRA({"backbone.norm": 2}, 4.0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lora")
    torch.manual_seed(3)
    vitrail.save_model(create_model("vit_tiny_patch16_224", preprocess=GREY, **SIZES), place / "base")
    train(config(place))
    return place


def config(place: Path, **changes: object) -> TrainConfig:
    values = dict(
        data="digits",
        model="vit_tiny_patch16_224",
        set=("dim=16", "depth=2", "num_heads=2", "patch_size=4", "in_channels=1"),
        imgsz=8,
        epochs=2,
        batch=240,
        lr=5e-3,
        precision="fp32",
        save_seconds=0,
        save_steps=5,
        weights=str(place / "base"),
        lora=4,
        lora_targets=("qkv,proj",),
        out=str(place / "run"),
    )
    return TrainConfig(**{**values, **changes})


def test_only_adapters_and_head_are_trained(run: Path) -> None:
    base, tuned = vitrail.load_model(run / "base"), vitrail.load_model(run / "run" / "weights" / "best")
    found = tuned.state_dict()
    for name, value in base.state_dict().items():
        if not name.startswith("head."):
            owner, _, last = name.rpartition(".")
            assert torch.equal(found[name if name in found else f"{owner}.base.{last}"], value), name
    layers = adapters(tuned)
    assert len(layers) == 4 and all(layer.b.abs().max() > 0 for layer in layers.values())
    plain = find_model(run / "run")
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(plain(images), tuned(images), atol=1e-5, rtol=1e-5)
    assert not plain.edits


def test_a_resumed_run_ends_with_the_same_weights(run: Path, tmp_path: Path) -> None:
    short = config(run, out=str(tmp_path / "part"), epochs=2)
    stop = StopRequest()

    class Stopper(NullReporter):
        def step(self, moment):
            if moment.step == 5:
                stop.request()

    with pytest.raises(Interrupted):
        train(short, Stopper(), stop)
    train(replace(short, resume="auto"))
    one, other = (vitrail.load_model(p / "weights" / "last").state_dict() for p in (run / "run", tmp_path / "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_adapters_find_their_base_and_refuse_another(run: Path, tmp_path: Path, capsys) -> None:
    small, whole = tmp_path / "adapters", tmp_path / "merged"
    assert main(["convert", str(run / "run"), "--to", "adapters", "--out", str(small)]) == 0
    assert (small / "adapters.safetensors").stat().st_size < (run / "base" / "model.safetensors").stat().st_size
    tuned = vitrail.load_model(run / "run" / "weights" / "best")
    again = load_adapters(small, str(run / "base"))
    assert all(torch.equal(value, tuned.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.labels == tuned.labels
    assert main(["convert", str(small), "--base", str(run / "base"), "--merge", "--out", str(whole)]) == 0
    assert not vitrail.load_model(whole).edits
    torch.manual_seed(4)
    other = vitrail.save_model(create_model("vit_tiny_patch16_224", preprocess=GREY, **SIZES), tmp_path / "other")
    with pytest.raises(VitrailError, match="another digest"):
        load_adapters(small, str(other))
    assert main(["convert", str(small), "--out", str(tmp_path / "x")]) == 2
    assert "--base" in capsys.readouterr().err


def test_unsupported_targets_are_refused(run: Path) -> None:
    with pytest.raises(VitrailError, match="Leave freeze"):
        config(run, freeze="backbone")
    with pytest.raises(VitrailError, match="need a rank"):
        config(run, lora=0)
    with pytest.raises(VitrailError, match="these are random"):
        train(config(run, weights=None, out=str(run / "none")))
