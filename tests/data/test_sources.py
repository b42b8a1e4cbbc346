"""The same images from a folder, a table, a tar or torchvision; messages for unusable sources."""

import gzip
import inspect
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_images import encoded, smooth_image

from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import open_dataset
from vitrail.data.table import Columns
from vitrail.data.torchvision_datasets import IN_FILES, IN_MEMORY
from vitrail.errors import DataError, VitrailError


def sizes(data) -> dict[str, int]:
    return {split: len(images) for split, images in data}


def refusal(spec, **options) -> str:
    with pytest.raises(VitrailError) as caught:
        open_dataset(spec, **options)
    message = str(caught.value)
    assert len(message.splitlines()) <= 6, message
    return message


# Digits


def test_digits_have_a_fixed_split_that_loses_nothing():
    data = open_dataset("digits")
    assert sizes(data) == {"train": 1259, "val": 179, "test": 359}
    ids = [name for _, images in data for name in images.ids]
    assert len(set(ids)) == 1797
    assert data.require("test").ids == open_dataset("digits", val_share=0.5).require("test").ids
    sample = data.require("train")[5]
    assert (sample.image.shape, sample.image.dtype, sample.label) == ((1, 8, 8), torch.uint8, data.train.labels[5])
    everything = np.concatenate([images.pixels[images.store.rows] for _, images in data])
    assert (everything.min(), everything.max()) == (0, 255)
    assert all(0.07 < count / len(images) < 0.13 for _, images in data for count in images.counts().values())


# Folders


def test_a_flat_folder_keeps_a_stratified_share_aside(tree):
    root = tree({"cat": 10, "dog": 20})
    data = open_dataset(root, val_share=0.2, test_share=0.1)
    assert data.classes == ("cat", "dog")
    assert data.train.counts() == {"cat": 7, "dog": 14}
    assert data.val.counts() == {"cat": 2, "dog": 4}
    assert data.test.counts() == {"cat": 1, "dog": 2}
    assert not set(data.train.ids) & set(data.val.ids) and not set(data.val.ids) & set(data.test.ids)
    assert sizes(open_dataset(root, val_share=0)) == {"train": 30}


def test_the_share_is_a_function_of_the_ids_only(tree, tmp_path):
    first = open_dataset(tree({"cat": 10, "dog": 20}, name="a"))
    again = open_dataset(tree({"dog": 20, "cat": 10}, name="b"))
    assert (first.train.ids, first.val.ids) == (again.train.ids, again.val.ids)
    more = open_dataset(tree({"cat": 10, "dog": 20, "emu": 5}, name="c"))
    assert set(first.val.ids) <= set(more.val.ids)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_splits_that_are_there_are_used(tree, val):
    data = open_dataset(tree({"train/cat": 3, "train/dog": 3, f"{val}/cat": 1, f"{val}/dog": 2, "test/cat": 1}))
    assert sizes(data) == {"train": 6, "val": 3, "test": 1}
    assert data.test.ids == ("test/cat/000.png",) and data.test.classes == ("cat", "dog")


def test_test_images_are_kept_aside_when_val_is_held_out(tree):
    data = open_dataset(tree({"train/cat": 8, "train/dog": 8, "test/cat": 2, "test/dog": 2}))
    assert sizes(data) == {"train": 14, "val": 2, "test": 4}
    assert all(name.startswith("train/") for name in data.val.ids)


def test_a_single_outer_folder_is_skipped(tree):
    root = tree({"archive/pets/train/cat": 2, "archive/pets/train/dog": 2, "archive/pets/test/cat": 1})
    assert sizes(open_dataset(root, val_share=0)) == {"train": 4, "test": 1}
    assert sizes(open_dataset(tree({"all/cat": 2, "all/dog": 3}, name="deep"), val_share=0)) == {"train": 5}
    only_test = open_dataset(tree({"test/cat": 2, "test/dog": 3}, name="t"))
    assert sizes(only_test) == {"test": 5}
    with pytest.raises(DataError, match="its splits: test"):
        only_test.require("train")


def test_other_files_are_counted_not_read(tree):
    root = tree({"cat": 2, "dog": 2})
    (root / "README.txt").write_text("hello")
    (root / "cat" / "notes.txt").write_text("hello")
    (root / "cat" / ".DS_Store").write_text("")
    (root / ".git").mkdir()
    data = open_dataset(root, val_share=0)
    assert sizes(data) == {"train": 4} and data.ignored == {".txt": 2}


def test_numbers_as_classes_are_sorted_as_numbers(tree):
    assert open_dataset(tree({"10": 2, "9": 2, "-1": 2})).classes == ("-1", "9", "10")


def test_loops_of_links_end(tree):
    root = tree({"cat": 2, "dog": 2})
    (root / "dog" / "again").symlink_to(root)
    assert sizes(open_dataset(root, val_share=0)) == {"train": 4}


def test_known_classes_give_the_order(tree):
    root = tree({"cat": 2, "dog": 2})
    data = open_dataset(root, classes=["emu", "dog", "cat"], val_share=0)
    assert sorted(data.train.labels.tolist()) == [1, 1, 2, 2]
    assert "'cat' is not one of the 2 classes" in refusal(root, classes=["emu", "dog"])


def test_refused_folders_name_the_remedy(tree, tmp_path):
    assert "class has no images" in refusal(tree({"cat": 2, "dog": 0}, name="a"))
    assert "only one class (cat)" in refusal(tree({"cat": 2}, name="b"))
    assert "'emu' is not one of the 2 classes (cat, dog)" in refusal(
        tree({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/emu": 1}, name="c")
    )
    assert "no images in folders of classes" in refusal(tree({"": 3}, name="d"))
    assert "Did you mean: digits" in refusal("digit")
    assert "Did you mean: pets-2024" in (tree({"cat": 1}, name="pets-2024") and refusal(tmp_path / "pets-2023"))
    root = tree({"cat": 2, "dog": 2}, name="e")
    (root / "cat" / "photo.heic").write_bytes(b"x")
    assert "convert it to PNG or JPEG" in refusal(root)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(VitrailError, match="no kind of data set"):
        open_dataset(tmp_path / "model.bin")
    assert "class with two images" in refusal(tree({"cat": 1, "dog": 1}, name="f"))


# Tables


@pytest.fixture
def table(tree, tmp_path):
    root = tree({"images": 6})

    def write(text: str, name: str = "labels.csv") -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


ROWS = [("000", "cat", "train"), ("001", "dog", "train"), ("002", "cat", "valid"), ("003", "dog", "test")]


def test_csv_tsv_and_jsonl_are_equivalent(table):
    lines = [(f"images/{name}.png", label, split) for name, label, split in ROWS]
    csv = table("\ufeffPath,label,Split\n" + "".join(",".join(line) + "\n" for line in lines))
    tsv = table("path\tclass\tset\n" + "".join("\t".join(line) + "\n" for line in lines), "labels.tsv")
    rows = [json.dumps(dict(zip(("image", "label", "split"), line, strict=True))) for line in lines]
    jsonl = table("\n\n".join(rows), "labels.jsonl")
    for path in (csv, tsv, jsonl):
        data = open_dataset(path)
        assert sizes(data) == {"train": 2, "val": 1, "test": 1}
        assert data.classes == ("cat", "dog")
        assert data.val.image(0).tobytes() == smooth_image(2).tobytes()
        assert data.val.ids == ("images/002.png",)


def test_columns_can_be_named(table):
    path = table("where,what,label\nimages/000.png,a,x\nimages/001.png,b,x\n")
    data = open_dataset(path, columns=Columns(image="where", label="what"), val_share=0)
    assert data.classes == ("a", "b")


@pytest.mark.parametrize("labels", [["3", "10"], [3, 10], [3.0, 10.0]])
def test_labels_may_be_numbers(table, labels):
    lines = [json.dumps({"file_name": f"images/00{n}.png", "label": label}) for n, label in enumerate(labels)]
    assert open_dataset(table("\n".join(lines), "a.jsonl"), val_share=0).classes == ("3", "10")


def test_numbers_index_known_classes(table):
    path = table("path,label\nimages/000.png,1\nimages/001.png,0\n")
    assert open_dataset(path, classes=["cat", "dog"], val_share=0).train.labels.tolist() == [1, 0]
    path = table("path,label\nimages/000.png,1\nimages/001.png,2\n")
    assert "label '2' is not one of the 2 classes" in refusal(path, classes=["cat", "dog"])


def test_metadata_in_the_image_folder(table):
    path = table("file_name,label\nimages/000.png,cat\nimages/001.png,dog\n", "metadata.csv")
    assert sizes(open_dataset(path.parent, val_share=0)) == {"train": 2}
    path.unlink()
    for split, number in (("train", 0), ("validation", 1)):
        rows = [{"file_name": f"../images/00{number + n}.png", "label": label} for n, label in enumerate("ab")]
        table("\n".join(map(json.dumps, rows)), f"{split}/metadata.jsonl")
    data = open_dataset(path.parent)
    assert sizes(data) == {"train": 2, "val": 2}
    assert data.val.ids[0] == "validation/../images/001.png"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", r"Its columns: a, b"),
        ("path,species\nimages/000.png,x\n", "--label-column"),
        ("path,label\nimages/000.png,\nimages/001.png,a\n", "line 2: no label"),
        ("path,label,split\nimages/000.png,a,train\nimages/001.png,b,holdout\n", "split 'holdout'"),
        ("path,label\nimages/000.png,a\nimages/000.png,b\n", "named before"),
        ("path,label\nimages/000.png,a, round\nimages/001.png,b\n", "line 2: more cells than columns"),
        ("path,label,label\nimages/000.png,a,b\n", "names the column label twice"),
        ('path,label\n"images/000.png,a\n', "cannot|not a table|unexpected"),
    ],
)
def test_refused_tables_name_the_remedy(table, text, said):
    with pytest.raises(VitrailError, match=said):
        open_dataset(table(text))


@pytest.mark.parametrize(("text", "said"), [("[1]", "not an object"), ("{", "line 1 is not JSON"), ("\n", "empty")])
def test_refused_json_names_the_remedy(table, text, said):
    assert said in refusal(table(text, "a.jsonl"))
    assert "Did you mean: species" in refusal(
        table("path,species\nimages/000.png,x\n"), columns=Columns(label="specie")
    )
    broken = table("x")
    broken.write_bytes(b"path,label\n\xff\xfe,a\n")
    assert "UTF-8" in refusal(broken)


# torchvision


def write_mnist(root: Path, count: int = 20) -> None:
    """Write random files in MNIST's published layout."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for stem, number in (("train", count), ("t10k", count // 2)):
        pixels = np.random.default_rng(number).integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = (np.arange(number) % 10).astype(np.uint8)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, number, 28, 28) + pixels.tobytes()
        )
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, number) + labels.tobytes())


def test_a_data_set_of_torchvision(tmp_path):
    write_mnist(tmp_path, 40)
    data = open_dataset(f"torchvision:MNIST@{tmp_path}")
    assert sizes(data) == {"train": 30, "val": 10, "test": 20}
    assert data.classes[3] == "3 - three"
    assert data.test.pixels.shape == (20, 1, 28, 28) and data.test.ids[7] == "test/00007"
    assert data.test[7].label == 7


def test_refused_torchvision_names_get_the_remedy(tmp_path):
    assert "Did you mean: MNIST" in refusal("torchvision:MNST")
    spec = f"torchvision:CIFAR10@{tmp_path}"
    assert f"(vitrail data check {spec} --download)" in refusal(spec)
    assert list(tmp_path.iterdir()) == []  # looking is not downloading


@pytest.mark.parametrize("name", [*IN_MEMORY, *IN_FILES])
def test_torchvision_has_these_names_and_options(name):
    from torchvision import datasets

    known = set(inspect.signature(getattr(datasets, name)).parameters)
    for options in (IN_MEMORY | IN_FILES)[name].values():
        assert {*options, "root", "download"} <= known
    assert ("loader" in known) == (name in IN_FILES)


@pytest.mark.shared
def test_mnist_as_published(shared: Path, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-labels-idx1-ubyte"):
        (folder / name).write_bytes(gzip.decompress((shared / "data" / "mnist" / f"{name}.gz").read_bytes()))
    (folder / "train-images-idx3-ubyte").write_bytes((folder / "t10k-images-idx3-ubyte").read_bytes())
    (folder / "train-labels-idx1-ubyte").write_bytes((folder / "t10k-labels-idx1-ubyte").read_bytes())
    data = open_dataset(f"torchvision:MNIST@{tmp_path}")
    assert len(data.test) == 10_000 and data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_a_set_is_indexed_taken_and_counted(tree):
    data = open_dataset(tree({"cat": 3, "dog": 3}), val_share=0).require("train")
    part = data.take([4, 0])
    assert isinstance(part, ImageSet)
    assert part.ids == (data.ids[4], data.ids[0]) and part.labels.tolist() == [1, 0]
    assert torch.equal(part[0].image, data[4].image)
    assert part.counts() == {"cat": 1, "dog": 1}
    assert data.image(0).tobytes() == open_dataset(tree({}), val_share=0).require("train").image(0).tobytes()
    assert encoded(data.image(0)) == encoded(smooth_image(0))
