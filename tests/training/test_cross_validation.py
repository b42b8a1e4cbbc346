"""Folds, gradual unfreezing, soups and averages over views."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vitrail
from vitrail.cli import main
from vitrail.data.datasets import open_dataset
from vitrail.data.folds import fold_of, split_fold
from vitrail.errors import VitrailError
from vitrail.inference.soup import estimate_statistics, greedy_soup, uniform_soup
from vitrail.models import create_model
from vitrail.preprocess import Preprocess
from vitrail.tasks.classify.view_average import averaged, views
from vitrail.training import train as training
from vitrail.training.config import TrainConfig
from vitrail.training.cross_validation import cross_validate
from vitrail.training.signals import Interrupted, StopRequest


def test_each_sample_is_validated_once_and_classes_are_even() -> None:
    data = open_dataset("digits", val_share=0.0)
    parts = [split_fold(data, 3, number) for number in range(3)]
    train = data.require("train")
    assert sorted(name for part in parts for name in part.val.ids) == sorted(train.ids)
    for part in parts:
        assert not set(part.val.ids) & set(part.train.ids) and len(part.val) + len(part.train) == len(train)
        counts = np.array(list(part.val.counts().values())) * 3 - np.array(list(train.counts().values()))
        assert abs(counts).max() <= 3 and part.classes == data.classes
    assert "test" in parts[0].notes()[-1]
    shuffled = train.take(np.random.default_rng(0).permutation(len(train)))
    order = dict(zip(shuffled.ids, fold_of(shuffled, 3), strict=True))
    assert [order[name] for name in train.ids] == fold_of(train, 3).tolist()  # by the ids alone


def test_an_interrupted_cross_validation_continues(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(folds=2, epochs=1, batch=200)
    stop = StopRequest()
    made = training.finalize

    def finalize(run, splits):  # the second run is stopped before its first update
        stop.request(130)
        return made(run, splits)

    with monkeypatch.context() as patch:
        patch.setattr(training, "finalize", finalize)
        with pytest.raises(Interrupted, match=f"--resume {config.out}$"):
            cross_validate(config, stop=stop)
    first = (Path(config.out) / "fold-0" / "summary.json").read_bytes()
    assert main(["train", "--resume", str(config.out)]) == 0
    assert (Path(config.out) / "fold-0" / "summary.json").read_bytes() == first
    summary = json.loads((Path(config.out) / "summary.json").read_text())
    assert len(summary["top1_folds"]) == 2 and summary["top1"] == pytest.approx(np.mean(summary["top1_folds"]))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mean") for line in lines) and lines[-1].endswith(str(config.out))
    alone = replace(config, fold=1, out=str(tmp_path / "alone"))
    assert training.train(alone).metrics["top1"] == summary["top1_folds"][1]  # a fold is a run like any other


@pytest.mark.parametrize("changes", [{"folds": 1}, {"folds": 3, "fold": 3}, {"fold": 0}, {"unfreeze": 2}])
def test_impossible_folds_and_thaws_are_refused(changes) -> None:
    with pytest.raises(VitrailError):
        TrainConfig(data="digits", **changes)


def test_layers_learn_one_after_the_other(tiny) -> None:
    config = tiny(freeze="backbone", unfreeze=2, epochs=3, batch=240, save_steps=5, save_seconds=0)
    states, kept = [], training.Trainer.validated

    def validated(run, metrics):
        states.append({name: value.clone() for name, value in run.model.state_dict().items()})
        kept(run, metrics)

    training.Trainer.validated, before = validated, kept
    try:
        training.train(config)
    finally:
        training.Trainer.validated = before
    start = create_model(
        "vit_tiny_patch16_224", dim=16, depth=2, num_heads=2, patch_size=4, image_size=8, in_channels=1, num_classes=10
    )
    names = [name for name in start.state_dict() if name.endswith("weight") and states[0][name].ndim > 1]
    first, last = (next(n for n in names if part in n) for part in ("embedding", "blocks.1.token_mixer.qkv"))
    assert not torch.equal(states[0]["head.linear.weight"], states[1]["head.linear.weight"])
    assert torch.equal(states[0][first], states[1][first]) and not torch.equal(states[1][first], states[2][first])
    assert not torch.equal(states[0][last], states[1][last])


def small(seed: int):
    torch.manual_seed(seed)
    grey = Preprocess(size=8, crop=1.0, mean=(0.5,), std=(0.5,))
    sizes = dict(dim=16, depth=1, num_heads=2, patch_size=4, in_channels=1, preprocess=grey, num_classes=10)
    return create_model("vit_tiny_patch16_224", **sizes).eval()


def test_a_soup_is_the_mean_of_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [small(seed) for seed in range(3)]
    soup = uniform_soup(models)
    for name, value in soup.state_dict().items():
        expected = sum(model.state_dict()[name].double() for model in models) / 3
        torch.testing.assert_close(value.double(), expected, atol=1e-7, rtol=0)
    same = uniform_soup([models[0], models[0]])
    assert all(torch.equal(same.state_dict()[name], value) for name, value in models[0].state_dict().items())
    folders = [str(vitrail.save_model(model, tmp_path / str(i))) for i, model in enumerate(models)]
    assert main(["runs", "soup", *folders, "--out", str(tmp_path / "soup"), "--data", "digits"]) == 0
    told = capsys.readouterr().err
    assert "soup of" in told and (tmp_path / "soup" / "model.safetensors").exists()
    with pytest.raises(VitrailError, match="another config"):
        uniform_soup([models[0], create_model("vit_tiny_patch16_224", depth=1)])


def test_a_soup_takes_runs_that_began_from_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "other"):
        vitrail.save_model(small(len(name)), name)

    def run(name: str, **config: object) -> None:
        for place in ("best", "last"):
            vitrail.save_model(small(0), Path(name) / "weights" / place)
        (Path(name) / "config.yaml").write_text(json.dumps({"task": "classify", **config}))

    def soup(*folders: str) -> str:
        code = main(["runs", "soup", *folders, "--out", "soup"])
        text = capsys.readouterr().err
        assert code == (2 if "error" in text else 0), text
        return text

    run("r0", weights=None, seed=0)
    run("r1", weights=None, seed=1)
    run("again", weights=None, seed=0)
    run("a", weights="base", seed=0)
    run("b", weights=str(tmp_path / "base"), seed=1)
    run("c", weights="other", seed=0)
    run("hub", weights="hf:org/name@main", seed=0)
    text = soup("r0", "r1")
    assert "r0 began from random weights of seed 0, and r1 from random weights of seed 1" in text
    assert "train them with the same --weights, or the same --seed" in text
    assert "r0 began from random weights of seed 0, and a from base" in soup("r0", "a")
    assert "a began from base, and c from other" in soup("a", "b", "c")
    for same in (("r0", "again"), ("r0/weights/best", "r0/weights/last"), ("a", "b"), ("a", "base"), ("base", "b")):
        assert soup(*same).splitlines() == ["mean of 2 models"]
    assert "error" in soup("r1/weights/last", "r0")
    for open_ in ("hub", "other"):
        assert f"note: it is not known whether {open_} began from the same weights as a" in soup("a", open_)


def test_a_greedy_soup_leaves_out_harmful_runs() -> None:
    models = [small(seed) for seed in range(3)]
    target = (models[0].head.linear.weight + models[2].head.linear.weight).detach() / 2
    found = greedy_soup(models, lambda model: -(model.head.linear.weight - target).detach().norm().item())
    assert set(found.members) == {0, 2} and found.score == pytest.approx(0.0, abs=1e-6)
    assert found.score >= max(found.scores)


def test_batch_norms_of_a_soup_are_estimated_again() -> None:
    """Their statistics are those of the averaged weights on the data; the mean of the members' is another."""
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()).eval() for _ in range(2)]
    data = [torch.randn(16, 3) + 2 for _ in range(3)]
    for model in models:
        estimate_statistics(model, lambda one: [one(batch) for batch in data])
    with pytest.raises(VitrailError, match="1 BatchNorm layers"):
        uniform_soup(models)
    soup = uniform_soup(models, lambda one: [one.eval()(batch) for batch in data])
    with torch.no_grad():
        hidden = [soup[0](batch) for batch in data]
    torch.testing.assert_close(soup[1].running_mean, torch.stack([each.mean(0) for each in hidden]).mean(0))
    torch.testing.assert_close(soup[1].running_var, torch.stack([each.var(0) for each in hidden]).mean(0))
    mean_of_members = (models[0][1].running_var + models[1][1].running_var) / 2
    assert not torch.allclose(soup[1].running_var, mean_of_members, rtol=0.1)
    assert not soup[1].training and soup[1].momentum == 0.1 and not soup[1]._forward_hooks
    found = greedy_soup(models, lambda one: -float(one[1].running_var.sum()), lambda one: [one(each) for each in data])
    assert found.score >= max(found.scores)


def test_views_are_averaged_as_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, images = small(0), torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        both = (model(images).softmax(-1) + model(images.flip(-1)).softmax(-1)) / 2
        torch.testing.assert_close(averaged(model, ("flip",))(images).softmax(-1), both)
        whole = torch.full((1, 1, 8, 8), 0.3)
        for view in views(whole, ("flip", "vflip", "rotate", "crops")):
            torch.testing.assert_close(view, whole)
    assert averaged(model, ()) is model
    folder = str(vitrail.save_model(model, tmp_path / "m"))
    assert main(["evaluate", folder, "digits", "--tta", "flip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["predict", folder, "x.png", "--tta", "flp"]) == 2
    assert "Did you mean: flip" in capsys.readouterr().err


def test_folds_are_not_continued_with_another_config(tiny) -> None:
    """The folds of another experiment would be taken for those of this one, and its summary replaced."""
    config = tiny(folds=2, epochs=1, batch=400)
    cross_validate(config)
    summary = (Path(config.out) / "summary.json").read_bytes()
    assert cross_validate(replace(config, resume="auto")).seconds > 0  # the same config takes the finished folds
    for change in ({"folds": 3}, {"lr": 3e-2}, {"epochs": 2}, {"model": "cct_2_3x2_32"}, {"data": "other"}):
        with pytest.raises(VitrailError, match=f"begun with {next(iter(change))}="):
            cross_validate(replace(config, resume="auto", **change))
    assert (Path(config.out) / "summary.json").read_bytes() == summary
