"""A check finds every fault, names it with its reason, and stops at none."""

import json
import os
import shutil
from pathlib import Path

import pytest
from drawn_images import encoded, smooth_image

from vitrail.cli.data import Data
from vitrail.data.check import CheckReport, check_dataset
from vitrail.data.datasets import open_dataset


@pytest.fixture
def healthy(tree):
    return tree({"train/cat": 20, "train/dog": 20, "val/cat": 5, "val/dog": 5}, size=(60, 50))


def check(root: Path, **how) -> CheckReport:
    return check_dataset(open_dataset(root, bad="list"), **how)


def damage(root: Path) -> dict[str, str]:
    """Break images in every way that files break; return the kind that each must be reported as."""
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    good = (cat / "000.png").read_bytes()
    (cat / "000.png").write_bytes(b"")
    (cat / "001.png").write_bytes(good[:150])
    (cat / "002.png").write_text("<html>404</html>")
    (cat / "003.png").unlink()
    (cat / "003.png").symlink_to("nowhere")
    (cat / "004.png").unlink()
    os.mkfifo(cat / "004.png")
    (dog / "000.png").unlink()
    (dog / "000.png").mkdir()
    (dog / "001.png").write_bytes(b"P6 60000 1000 255\n" + bytes(50))
    (dog / "iphone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (root / "val" / "emu").mkdir()
    (root / "val" / "emu" / "a.png").write_bytes(good)
    (root / "train" / "fox").mkdir()
    return {
        "train/cat/000.png": "empty",
        "train/cat/001.png": "truncated",
        "train/cat/002.png": "format",
        "train/cat/003.png": "missing",
        "train/cat/004.png": "not a file",
        "train/dog/000.png": "not a file",
        "train/dog/001.png": "size",
        "train/dog/iphone.heic": "format",
        "val/emu/a.png": "label",
        "train/fox": "empty class",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_every_fault_is_listed_with_its_reason(healthy, workers):
    assert check(healthy, workers=workers).ok
    expected = damage(healthy)
    report = check(healthy, workers=workers)
    assert {problem.id: problem.kind for problem in report.bad} == expected
    assert len(report.bad) == len(expected) and not report.ok
    assert all(problem.reason for problem in report.bad)
    assert sum(report.kinds.values()) == len(expected)


def test_a_healthy_set_is_counted_and_measured(healthy):
    report = check(healthy)
    assert report.ok and report.equal == [] and report.near == [] and report.warnings == []
    train = report.splits["train"]
    assert (train.images, train.counts, train.imbalance) == (40, {"cat": 20, "dog": 20}, 1.0)
    assert (train.width, train.height) == ((60, 60, 60), (50, 50, 50))
    assert set(report.splits) == {"train", "val"}


def test_copies_across_the_splits_are_leakage(healthy):
    train, val = healthy / "train", healthy / "val"
    shutil.copy(train / "cat" / "003.png", val / "cat" / "copy.png")
    shutil.copy(train / "cat" / "005.png", train / "dog" / "wrong.png")
    (val / "dog" / "again.jpg").write_bytes(encoded(smooth_image(27, (60, 50)).resize((90, 75)), "JPEG", quality=85))
    report = check(healthy)
    assert report.ok  # usable, and told
    equal = {tuple(sorted(group.ids)): (group.leaks, group.labels) for group in report.equal}
    assert equal == {
        ("train/cat/003.png", "val/cat/copy.png"): (True, ["cat"]),
        ("train/cat/005.png", "train/dog/wrong.png"): (False, ["cat", "dog"]),
    }
    assert [(sorted(group.ids), group.splits) for group in report.near] == [
        (["train/dog/007.png", "val/dog/again.jpg"], ["train", "val"])
    ]
    said = " ".join(report.warnings)
    assert "look alike" in said and "are equal" in said and "contradiction" in said


def test_held_out_images_count_as_a_split(tree):
    root = tree({"cat": 20, "dog": 20}, size=(60, 50))
    for number in range(20):
        shutil.copy(root / "cat" / f"{number:03d}.png", root / "cat" / f"copy{number:03d}.png")
    report = check_dataset(open_dataset(root, val_share=0.2, bad="list"))
    assert len(report.equal) == 20 and any(group.leaks for group in report.equal)
    assert set(report.splits) == {"train", "val"}


def test_class_imbalance_and_missing_classes_give_warnings(tree):
    report = check(tree({"train/cat": 22, "train/dog": 2, "val/cat": 2}), decode=False)
    assert report.ok and report.splits["train"].imbalance == 11
    assert report.warnings == [
        "train is uneven: its largest class is 11 times its smallest",
        "val has no images of one class: dog",
    ]


def test_a_missing_extra_is_reported(healthy, monkeypatch):
    monkeypatch.setattr("vitrail.data.check.can_hash", lambda: False)
    report = check(healthy)
    assert report.near is None and "pip install imagehash" in " ".join(report.warnings)


def test_a_report_is_json(healthy):
    damage(healthy)
    again = json.loads(json.dumps(check(healthy).to_dict()))
    assert again["ok"] is False and again["kinds"]["format"] == 2
    assert {"id", "reason", "kind"} == set(again["bad"][0])


# The command


def test_the_command_prints_its_findings(healthy, capsys):
    assert Data("check", str(healthy)).run() == 0
    assert "everything can be used" in capsys.readouterr().out
    expected = damage(healthy)
    assert Data("check", str(healthy)).run() == 3
    out = capsys.readouterr().out
    assert all(name in out for name in expected) and "10 cannot be used" in out
    assert Data("check", str(healthy), json=True).run() == 3
    assert len(json.loads(capsys.readouterr().out)["bad"]) == 10


def test_faults_of_the_data_set_are_not_counted_as_images(tree, capsys):
    root = tree({"only": 10})
    assert Data("check", str(root)).run() == 3
    out = capsys.readouterr().out
    assert "1 class\n" in out and out.rstrip().endswith("s: the data set cannot be used as it is.")
    next(root.rglob("*.png")).write_bytes(b"")
    assert Data("check", str(root)).run() == 3
    assert "1 cannot be used, and the data set cannot be used as it is." in capsys.readouterr().out


def test_lists_are_truncated_unless_all_is_given(healthy, capsys):
    for number in range(1, 20):
        for split, label in (("train", "cat"), ("train", "dog")):
            (healthy / split / label / f"{number:03d}.png").write_bytes(b"")
    assert Data("check", str(healthy)).run() == 3
    assert "and 18 more (--all)" in capsys.readouterr().out
    Data("check", str(healthy), all=True).run()
    assert capsys.readouterr().out.count("the file is empty") == 38


def test_strict_makes_warnings_count(tree, capsys):
    root = str(tree({"train/cat": 22, "train/dog": 2}))
    assert Data("info", root, val_share=0).run() == 0
    assert Data("info", root, val_share=0, strict=True).run() == 3
    said = capsys.readouterr().out
    assert "24 images listed" in said and "can be used" not in said  # they were counted, not read


@pytest.mark.shared
@pytest.mark.slow
def test_cifar10_opens_and_is_whole(shared: Path):
    data = open_dataset(shared / "data" / "cifar10" / "cifar10_images_jpg.tar.gz")
    assert {images.pixels.shape[1:] for _, images in data} == {(3, 32, 32)}
    assert [len(images) for _, images in data] == [45_000, 5_000, 10_000]
    assert set(data.test.counts().values()) == {1000} and data.classes[0] == "airplane"
