"""Few images, uneven classes: messages before and while training, class weights, balanced sampling."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

import vitrail
from vitrail.cli import main
from vitrail.data.datasets import open_dataset
from vitrail.data.sampler import ResumableSampler
from vitrail.tasks.classes.loss import classification_loss
from vitrail.tasks.classify.defaults import advice, default_model
from vitrail.training.config import TrainConfig
from vitrail.training.watch import MANY, TrainingWatch

SMALL = [
    "--model",
    "vit_tiny_patch16_224",
    "--set",
    "depth=1",
    "dim=24",
    "num_heads=1",
    "patch_size=8",
    "--imgsz",
    "16",
]


def photos(root, counts, size=(90, 70)):
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
                root / name / f"{k}{size[0] + k}.png"
            )
            size = (size[0] + 1, size[1])  # of different sizes, as photographs are
    return root


def test_the_default_model_depends_on_machine_and_images(tmp_path):
    data = open_dataset(photos(tmp_path / "p", {"a": 8, "b": 8}))
    assert default_model(data, "cuda", False).model == "swin_tiny_patch4_window7_224"
    assert default_model(data, "cpu", False).model == "pvt_v2_b0"
    assert default_model(data, "cpu", True).model == "vit_tiny_patch16_224"
    assert default_model(open_dataset("digits"), "cpu", False).model == "cct_7_3x1_32"


def test_few_images_without_weights_are_reported_before_training(tmp_path):
    data = open_dataset(photos(tmp_path / "p", {"a": 8, "b": 8}))
    config = TrainConfig(data="p", model="swin_tiny_patch4_window7_224", epochs=100_000)
    few, long = advice(data, config, "cpu", 2.0)
    assert "14 images (7 a class) are few for random weights" in few and "--weights pretrained" in few
    assert "take roughly" in long and "--minutes 30" in long
    assert advice(data, replace(config, weights="w.pt", epochs=2), "cpu", 2.0) == []


@pytest.mark.parametrize(("side", "noted"), [(50, True), (48, False)])
def test_sizes_off_the_patch_are_noted(side, noted):
    config = TrainConfig(data="digits", model="vit_tiny_patch16_224", imgsz=side)
    assert (
        any("no multiple of the patch of 16" in text for text in advice(open_dataset("digits"), config, "cpu", 2.0))
        is noted
    )


def test_first_lines_of_a_run(tmp_path, capsys):
    photos(tmp_path / "p", {"a": 8, "b": 8})
    assert main(["train", str(tmp_path / "p"), *SMALL, "--epochs", "1", "--out", str(tmp_path / "r")]) == 0
    assert "are few for random weights" in "".join(capsys.readouterr())


def test_class_weights_balance_the_loss():
    logits, targets = torch.randn(6, 2, requires_grad=True), torch.tensor([0, 0, 0, 0, 0, 1])
    weights = torch.tensor([6 / (2 * 5), 6 / (2 * 1)])
    parts = [cross_entropy(logits[targets == k], targets[targets == k]) for k in (0, 1)]
    torch.testing.assert_close(classification_loss(logits, targets, 0.0, weights), sum(parts) / 2)
    one_hot = torch.nn.functional.one_hot(targets, 2).float()
    torch.testing.assert_close(classification_loss(logits, one_hot, 0.0, weights), sum(parts) / 2)
    halves = [classification_loss(logits[part], targets[part], 0.1, weights) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, classification_loss(logits, targets, 0.1, weights))


def test_balanced_sampling_draws_classes_equally_and_is_a_function_of_the_epoch():
    labels = (0,) * 50 + (1,) * 7 + (2,) * 3
    order = ResumableSampler(60, 6, labels=labels)
    first, again, second = order.permutation(0), order.permutation(0), order.permutation(1)
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    assert np.bincount(np.array(labels)[first % 60]).tolist() == [20, 20, 20]
    assert len(set(first.tolist())) == 60  # a repeated image has a number of its own, so other augmentation
    together = np.concatenate(list(order.batches(0)))
    assert np.array_equal(together, first)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_uneven_classes_are_trained(balance, tmp_path):
    photos(tmp_path / "p", {"a": 30, "b": 4}, (20, 20))
    out = str(tmp_path / "r")
    assert main(["train", str(tmp_path / "p"), *SMALL, "--epochs", "2", "--balance", balance, "--out", out]) == 0


def test_columns_are_named_on_train_and_evaluate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "img", {"x": 8, "y": 8})
    rows = [
        f"img/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted((tmp_path / "img").rglob("*.png"))
    ]
    (tmp_path / "t.csv").write_text("\n".join(["id,breed", *rows]))
    columns = ["--image-column", "id", "--label-column", "breed"]
    assert main(["train", "t.csv", *columns, *SMALL, "--epochs", "1", "--out", "r"]) == 0
    assert main(["evaluate", "r", "t.csv", "--split", "val", *columns]) == 0
    assert vitrail.evaluate("r", "t.csv", split="val", image_column="id", label_column="breed").samples > 0


def test_warnings_while_training():
    watch = TrainingWatch(chance=0.69, baseline={"top1": 0.6}, clip=1.0)
    assert "first loss is 5.00" in (watch.step(1, 5.0, 1.0) or "")
    told = [watch.step(step, 0.7, 30.0) for step in range(2, 2 * MANY + 2)]
    assert sum(text is not None for text in told) == 1 and "--lr" in (told[MANY - 1] or "")
    assert watch.validation({"top1": 0.5}, 0.1) is None  # too early
    assert "not above 0.600" in (watch.validation({"top1": 0.6}, 0.5) or "")
    assert watch.validation({"top1": 0.6}, 0.6) is None  # once
