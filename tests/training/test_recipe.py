"""Defaults from scratch and of fine-tuning: filled in once, told, and never over a given value."""

import re
from dataclasses import replace

import pytest

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.training.config import TrainConfig
from vitrail.training.dry_run import dry_run
from vitrail.training.recipe import FINE_TUNING, FROM_SCRATCH, with_recipe
from vitrail.training.run_dir import new_folder, settle_config, write_config
from vitrail.weights.folder import save_model

OWN = {"dim": 24, "depth": 2, "num_heads": 3, "patch_size": 4, "image_size": 16, "num_classes": 3}


@pytest.fixture
def weights(tmp_path) -> str:
    """A model folder of a ViT of own sizes for three classes."""
    save_model(create_model("vit_tiny_patch16_224", **OWN), tmp_path / "vit")
    return str(tmp_path / "vit")


def test_from_scratch_is_as_before():
    config, notes = with_recipe(TrainConfig(data="digits"))
    assert (config.model, config.epochs, config.lr, config.layer_decay, config.warmup) == (
        *(FROM_SCRATCH.model, FROM_SCRATCH.epochs, FROM_SCRATCH.lr, FROM_SCRATCH.layer_decay, FROM_SCRATCH.warmup),
    )
    assert notes == []
    assert with_recipe(config) == (config, [])


def test_fine_tuning_takes_model_and_sizes_of_the_weights(weights):
    config, notes = with_recipe(TrainConfig(data="digits", weights=weights, epochs=3))
    assert config.model == "vit_tiny_patch16_224"
    assert config.model_overrides() == {"dim": 24, "depth": 2, "patch_size": 4}
    assert (config.epochs, config.lr, config.layer_decay) == (3, FINE_TUNING.lr, FINE_TUNING.layer_decay)
    assert re.fullmatch(r"The weights are of vit_tiny_patch16_224 with .*dim=24.*; --model chooses another\.", notes[0])
    assert notes[1] == "fine-tuning: lr 0.0005, layer decay 0.75, warmup 0.1; change with --lr --layer-decay --warmup."


def test_fine_tuning_takes_the_size_of_images_of_the_weights(weights):
    """A model of 16 pixels would else be trained at 224; the size that is given comes first."""
    config, notes = with_recipe(TrainConfig(data="digits", weights=weights))
    assert config.imgsz == 16 and ", at 16 pixels (--imgsz); " in notes[0]
    for given in ({"imgsz": 32}, {"set": ("image_size=32",)}):
        config, notes = with_recipe(TrainConfig(data="digits", weights=weights, **given))
        assert config.imgsz == given.get("imgsz") and "pixels" not in notes[0]


def test_given_values_win(weights):
    given = {"model": "vit_tiny_patch16_224", "lr": 1e-2, "layer_decay": 1.0, "warmup": 0.0, "epochs": 2}
    config, notes = with_recipe(TrainConfig(data="digits", weights=weights, **given))
    assert {name: getattr(config, name) for name in given} == given and notes == []


def test_min_lr_above_the_default_is_kept():
    config, _ = with_recipe(TrainConfig(data="digits", min_lr=5e-3))
    assert config.lr == config.min_lr == 5e-3


def test_the_first_loss_of_a_new_head_is_that_of_chance(weights):
    plan = dry_run(TrainConfig(data="digits", weights=weights, imgsz=16, batch=8))
    assert plan.config.model == "vit_tiny_patch16_224" and plan.config.epochs == FINE_TUNING.epochs


def test_the_same_command_goes_on_with_a_run_from_weights(weights, tmp_path):
    """`resume=auto` compares what was given: model, fields and the size of images are those of the weights."""
    config = TrainConfig(data="digits", weights=weights, epochs=1, out=str(tmp_path / "run"))
    write_config(new_folder(config), with_recipe(config)[0])
    again = replace(config, resume="auto")
    stored, folder = settle_config(again)
    assert folder == tmp_path / "run" and (stored.imgsz, stored.model) == (16, "vit_tiny_patch16_224")
    assert stored.model_overrides() == {"dim": 24, "depth": 2, "patch_size": 4}
    for change in ({"set": ("drop_path=0.1",)}, {"imgsz": 32}):
        with pytest.raises(VitrailError, match="begun with"):
            settle_config(replace(again, **change))
