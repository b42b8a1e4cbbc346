"""Folders and tables as they are found: a class called train, split names of others, spreadsheets' habits."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vitrail.cli import main
from vitrail.data.check import check_dataset
from vitrail.data.datasets import open_dataset
from vitrail.data.folds import split_fold
from vitrail.data.table import Columns
from vitrail.errors import DataError, VitrailError
from vitrail.inference.predict import predict
from vitrail.models import create_model
from vitrail.training.config import TrainConfig
from vitrail.training.setup import open_data


def fold(root, classes, n=4):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            pixels = np.random.default_rng(100 * number + k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["bus", "car", "train"], ("bus", "car", "train")),
        (["all/bus", "all/car", "all/train"], ("bus", "car", "train")),
        (["bus/red", "bus/blue", "car/old", "train/steam", "train/diesel"], ("bus", "car", "train")),
        (["train/bus", "train/train", "val/bus", "val/train"], ("bus", "train")),
        (["dev/a", "dev/b", "train/a", "train/b"], ("a", "b")),
    ],
)
def test_train_is_a_split_only_among_splits(folders, classes, tmp_path):
    data = open_dataset(fold(tmp_path / "d", folders))
    assert data.classes == classes
    assert sum(len(part) for _, part in data) == 4 * len(folders)


def test_train_is_a_split_if_the_sibling_folder_has_no_images(tmp_path):
    root = fold(tmp_path / "d", ["train/a", "train/b"])
    (root / "annotations").mkdir()
    (root / "annotations" / "x.json").write_text("{}")
    data = open_dataset(root)
    assert data.classes == ("a", "b") and "1 .json" in data.notes()[0]


def test_two_classes_named_like_splits_are_reported(tmp_path):
    with pytest.raises(DataError, match=r"12 images .* taken for splits"):
        open_dataset(fold(tmp_path / "d", ["test", "train"], 6))


@pytest.mark.parametrize("names", [("seg_train", "seg_test"), ("training_set", "test_set")])
def test_classes_named_like_splits_give_a_warning(names, tmp_path):
    root = fold(tmp_path / "d", [f"{name}/{name}/{kind}" for name in names for kind in ("b", "f")])
    assert any("have names of splits" in text for text in check_dataset(open_dataset(root, bad="list")).warnings)


def table(root, text, name="t.csv"):
    fold(root, ["img"], 12)
    (root / name).write_text(text)
    return root / name


ROWS = "\n".join(f"img/{k}.png,{'xy'[k % 2]},{k % 5}" for k in range(10))


def test_a_column_of_fold_numbers_is_no_split(tmp_path):
    data = open_dataset(table(tmp_path, f"path,label,fold\n{ROWS}\n"))
    assert len(data.require("train")) + len(data.require("val")) == 10
    assert "'fold' names no train" in data.notes()[0]


def test_a_column_of_folds_divides_the_data(tmp_path):
    """Ten rows, whose folds are 2, 0, 10 in turn: images of one patient stay together."""
    rows = [f"{row},{(2, 0, 10)[number % 3]}" for number, row in enumerate(r.rpartition(",")[0] for r in ROWS.split())]
    spec = table(tmp_path, "\n".join(["path,label,fold", *rows]) + "\n")
    whole = open_dataset(spec, val_share=0.0, columns=Columns(fold="fold"))
    assert not whole.notes() and whole.train.take([1, 0]).folds.tolist() == ["0", "2"]
    held = [split_fold(whole, 3, number).val.ids for number in range(3)]
    assert [len(ids) for ids in held] == [3, 4, 3]  # 0, 2, 10: ordered as numbers
    assert held[1] == whole.train.ids[::3]
    with pytest.raises(DataError, match=r"3 folds .*--folds is 4"):
        split_fold(whole, 4, 0)
    second = open_data(TrainConfig(data=str(spec), fold_column="fold", folds=3, fold=1))
    assert second.require("val").ids == held[1]
    with pytest.raises(VitrailError, match="add --folds"):
        open_data(TrainConfig(data=str(spec), fold_column="fold"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("path;label\nimg/0.png;x\nimg/1.png;y\nimg/2.png;x\nimg/3.png;y\n", "t.csv"),
        ("path,label\nimg/0.png,x\nimg/1.png,y\n,\nimg/2.png,x\nimg/3.png,y\n", "T.CSV"),
    ],
)
def test_tables_exported_by_spreadsheets(text, name, tmp_path):
    data = open_dataset(table(tmp_path, text, name))
    assert data.classes == ("x", "y") and sum(len(part) for _, part in data) == 4


def test_whole_numbers_written_as_floats_are_sorted_as_numbers(tmp_path):
    rows = "\n".join(f"img/{k}.png,{k % 11}.0" for k in range(11)) + "\nimg/11.png,10.0"
    data = open_dataset(table(tmp_path, f"path,label\n{rows}\n"))
    assert data.classes == tuple(map(str, range(11)))


def test_a_table_without_names_is_reported(tmp_path):
    with pytest.raises(DataError, match="no column names"):
        open_dataset(table(tmp_path, "img/0.png, dog\nimg/1.png, cat\n"))


def test_two_spellings_of_a_path_are_one_image(tmp_path):
    with pytest.raises(DataError, match="named before"):
        open_dataset(table(tmp_path, "path,label\n./img/0.png,x\nimg/0.png,x\nimg/1.png,y\n"))


def test_images_of_foreign_formats_in_a_folder_get_a_reason(tmp_path):
    fold(tmp_path, ["a"], 1)
    (tmp_path / "a" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" * 9)
    model = create_model("vit_tiny_patch16_224", num_classes=2, depth=1, dim=24, num_heads=1, image_size=16).eval()
    results = predict(model, tmp_path, optimize=False)
    assert [result.error is None for result in results] == [True, False]


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


@pytest.fixture
def begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fold(tmp_path / "d", ["a", "b", "c"], 10)
    assert main(["train", "d", *SMALL, "--epochs", "2", "--batch", "9", "--out", "r", "--save-steps", "1"]) == 0
    values = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert values["epochs"] == 2
    config = (tmp_path / "r" / "config.yaml").read_text()
    (tmp_path / "r" / "config.yaml").write_text(config.replace("epochs: 2", "epochs: 3"))
    return tmp_path


def test_resume_refuses_other_classes(begun, capsys):
    shutil.move(begun / "d" / "c", begun / "d" / "0c")
    assert main(["train", "--resume", "r"]) == 3
    assert "the labels of its data are not those" in capsys.readouterr().err


def test_resume_reports_other_images(begun, capsys):
    fold(begun / "d", ["a"], 12)
    main(["train", "--resume", "r"])
    assert "the training data is not what the run was trained on" in "".join(capsys.readouterr())


def test_a_class_without_training_images_is_refused(tmp_path):
    root = fold(tmp_path / "d", ["train/a", "train/b", "val/a", "val/c"], 1)
    with pytest.raises(DataError, match="add images of the class to train, or remove these"):
        open_dataset(root)
    with pytest.raises(DataError, match="not trained on it"):
        open_dataset(root, classes=["a", "b"])


def test_sides_of_a_data_set_are_printed_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    root = fold(tmp_path / "d", ["a", "b"], 4)
    for k, side in enumerate((40, 1234, 567)):
        Image.new("RGB", (side, side), (k, 90, 0)).save(root / "a" / f"more{k}.png")
    main(["data", "check", str(root)])
    printed = capsys.readouterr().out
    assert "…" not in printed and printed.count("median") >= 2


def test_an_archive_in_capitals_is_an_archive(tmp_path):
    fold(tmp_path / "d", ["a", "b"])
    shutil.make_archive(str(tmp_path / "d"), "gztar", tmp_path / "d")
    (tmp_path / "d.tar.gz").rename(tmp_path / "D.TAR.GZ")
    assert open_dataset(tmp_path / "D.TAR.GZ").classes == ("a", "b")
