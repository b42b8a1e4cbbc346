"""A frozen backbone whose features are computed once: the same weights, fewer forward passes, exact resume."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitrail.parts.backbone import Backbone
from vitrail.tasks.classes.frozen_features import FeatureLoader
from vitrail.training.distributed import SingleProcess
from vitrail.training.dry_run import dry_run
from vitrail.training.reporters import NullReporter
from vitrail.training.setup import open_data
from vitrail.training.signals import StopRequest
from vitrail.training.train import make_run, train

FROZEN = {"freeze": "backbone", "augment": "none", "epochs": 2, "drop_path": None}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.tasks.classes.feature_cache.cache_folder", lambda kind: tmp_path / "cache")
    (tmp_path / "cache").mkdir()


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "weights" / "last" / "model.safetensors")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of images of each forward pass of a backbone."""
    seen, forward = [], Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda self, images: (seen.append(len(images)), forward(self, images))[1])
    monkeypatch.setattr("vitrail.training.train.summarize", lambda run, splits: run)
    return seen


def test_the_head_learns_what_it_learns_without_the_cache(tiny, tmp_path, monkeypatch) -> None:
    seen = counted(monkeypatch)
    run = train(tiny(**FROZEN, out=str(tmp_path / "once")))
    assert sum(seen) == 1259 + 179 and "computed once" in run.task.describe()
    seen.clear()
    train(tiny(**FROZEN, out=str(tmp_path / "plain"), cache_features=False))
    assert sum(seen) == 2 * (1200 + 179)
    once, plain = weights(tmp_path / "once"), weights(tmp_path / "plain")
    for name, value in plain.items():
        torch.testing.assert_close(once[name], value, rtol=1e-4, atol=1e-6 if "head" in name else 0.0)
    assert not torch.equal(plain["head.linear.weight"], torch.zeros_like(plain["head.linear.weight"]))


def test_a_killed_run_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch) -> None:
    counted(monkeypatch)
    whole = train(tiny(**FROZEN, save_steps=7, out=str(tmp_path / "run"))).folder
    shutil.copytree(whole, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "state" / "step-00000020")
    for path in (tmp_path / "cache").iterdir():  # computed again, in the same batches
        path.unlink()
    train(tiny(**FROZEN, save_steps=7, resume=str(tmp_path / "again"), out=str(tmp_path / "again")))
    first, second = (
        load_file(f / "state" / "step-00000020" / "tensors.safetensors") for f in (whole, tmp_path / "again")
    )
    assert all(torch.equal(second[name], value) for name, value in first.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "auto"},
        {"flip": 0.5},
        {"mixup": 0.2},
        {"freeze": "1"},
        {"unfreeze": 2},
        {"bad": "skip"},
        {"layer_drop": 0.2},
        {"cache_features": False},
        {"model": "deit_tiny_distilled_patch16_224"},
    ],
    ids=str,
)
def test_images_are_read_in_each_epoch_if_they_or_the_features_change(tiny, changes) -> None:
    config = tiny(**{**FROZEN, **changes})
    run = make_run(config, SingleProcess(torch.device("cpu")), open_data(config), NullReporter(), StopRequest())
    assert not isinstance(run.train_data, FeatureLoader)


def test_a_dry_run_tries_few_images_and_counts_all(tiny, monkeypatch) -> None:
    seen = counted(monkeypatch)
    plan = dry_run(tiny(**FROZEN))
    assert sum(seen) == 4 * 64
    assert "computed once" in plan.title and plan.warm_up_seconds > 0
    advised = dry_run(tiny(freeze="backbone"))
    assert any("--augment none" in text for text in advised.notes)
