"""A model with edits is trained like any other: its shapes stay in the weights, and in a run that goes on."""

import shutil
from dataclasses import replace

import pytest
import torch

from vitrail.edits.blocks import DropBlocks
from vitrail.edits.edit import apply_edits
from vitrail.edits.heads import PruneHeads
from vitrail.edits.hidden import PruneHidden
from vitrail.edits.low_rank import LowRank
from vitrail.models import create_model
from vitrail.training.config import TrainConfig
from vitrail.training.train import train
from vitrail.weights.folder import load_model, save_model

BLOCK = "backbone.stages.0.blocks.0"
EDITS = (
    DropBlocks({"backbone.stages.0": [0]}),
    PruneHeads({f"{BLOCK}.token_mixer": [1]}),
    PruneHidden({f"{BLOCK}.channel_mixer": range(48)}),
    LowRank({f"{BLOCK}.channel_mixer.fc2": 4}),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model with edits, and a run that trained from it for two epochs."""
    place = tmp_path_factory.mktemp("run")
    sizes = dict(dim=16, depth=2, num_heads=2, patch_size=4, in_channels=1, image_size=8, num_classes=10)
    save_model(apply_edits(create_model("vit_tiny_patch16_224", **sizes), *EDITS), place / "small")
    config = TrainConfig(
        data="digits",
        model="vit_tiny_patch16_224",
        set=("dim=16", "depth=2", "num_heads=2", "patch_size=4"),
        imgsz=8,
        epochs=2,
        batch=240,
        precision="fp32",
        save_seconds=0,
        save_steps=5,
        weights=str(place / "small"),
        out=str(place / "run"),
    )
    train(config)
    return place


def test_trained_weights_keep_the_edits(run):
    for name in ("best", "last"):
        model = load_model(run / "run" / "weights" / name)
        assert model.edits == EDITS and len(model.backbone.stages[0].blocks) == 1


def test_a_resumed_run_keeps_them_without_the_first_weights(run, tmp_path):
    copy = shutil.copytree(run / "run", tmp_path / "copy")
    shutil.rmtree(copy / "state" / "step-00000010", ignore_errors=True)
    (run / "small").rename(tmp_path / "moved")
    try:
        train(replace(TrainConfig(), resume=str(copy)))
    finally:
        (tmp_path / "moved").rename(run / "small")
    whole, again = (load_model(folder / "weights" / "last").state_dict() for folder in (run / "run", copy))
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
