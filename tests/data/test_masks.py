"""Images with masks: layouts, class numbers, faults."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.label_map import IGNORE, LabelMap, label_map
from vitrail.data.mask_check import check_masks
from vitrail.data.mask_io import mask_image, open_mask, palette
from vitrail.data.masks import open_masks
from vitrail.errors import DataError, VitrailError


def write(
    folder: Path, stem: str, mask: np.ndarray, size: tuple[int, int] | None = None, images: str = "train"
) -> None:
    masks = {"train": "trainannot", "images": "masks", "val": "valannot", "test": "testannot"}.get(images)
    masks = masks or images.replace("images", "masks")
    for name in (images, masks):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*mask.shape, 3), 90, np.uint8)).resize(size or mask.shape[::-1]).save(
        folder / images / f"{stem}.jpg"
    )
    Image.fromarray(mask).save(folder / masks / f"{stem}.png")


def numbers(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows, np.uint8)


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "val"), ("images/train", "images/val"), ("train/images", "val/images")],
)
def test_layouts(tmp_path, train, val):
    for i in range(3):
        write(tmp_path, f"a{i}", numbers((0, 1), (2, 255)), images=train)
    write(tmp_path, "b", numbers((0, 1)), images=val)
    data = open_masks(str(tmp_path))
    assert {split: len(samples) for split, samples in data} == {"train": 3, "val": 1}
    image, mask = data.require("train").pair(0)
    assert image.size == (2, 2) and mask.tolist() == [[0, 1], [2, 255]]
    assert label_map(data).names == ("0", "1", "2") and data.require("train").ids[0] == f"{train}/a0.jpg"


def test_a_share_is_held_out_by_name(tmp_path):
    for i in range(20):
        write(tmp_path, f"a{i:02d}", numbers((0, 1)), images="images")
    data = open_masks(str(tmp_path), val_share=0.2)
    train, val = (set(samples.ids) for _, samples in data)
    assert (len(train), len(val)) == (16, 4) and not train & val
    again = open_masks(str(tmp_path), val_share=0.2)
    assert set(again.require("val").ids) == val
    with pytest.raises(DataError, match="no images with masks for test; its splits: train, val"):
        data.require("test")


def test_names_and_void(tmp_path):
    write(tmp_path, "a", numbers((0, 1), (3, 2)))
    (tmp_path / "names.txt").write_text("sky\nvoid\nroad\ncar\n")
    data = open_masks(f"{tmp_path}@{tmp_path / 'names.txt'}", val_share=0.0)
    labels = label_map(data)
    assert (labels.names, labels.ids, labels.ignore) == (("sky", "road", "car"), (0, 2, 3), (1, 255))
    classes = labels.encode(data.require("train").mask(0))
    assert classes.tolist() == [[0, IGNORE], [2, 1]]
    assert labels.decode(np.array([[0, 1, 2]])).tolist() == [[0, 2, 3]]
    (tmp_path / "names.txt").rename(tmp_path / "classes.txt")
    assert open_masks(str(tmp_path), val_share=0.0).names == ("sky", "void", "road", "car")


@pytest.mark.parametrize(("text", "line"), [("sky\n\nroad\n", 2), ("\nsky\nroad", 1), ("sky\nroad\n \n\ncar\n", 3)])
def test_an_empty_line_of_names_is_refused(tmp_path, text, line):
    write(tmp_path, "a", numbers((0, 1)))
    names = tmp_path / "classes.txt"
    names.write_text(text)
    with pytest.raises(DataError, match=rf"classes\.txt, line {line} is empty, but it stands for class {line - 1}"):
        open_masks(str(tmp_path), val_share=0.0)
    names.write_text("sky\nroad\n \n\n")
    assert open_masks(str(tmp_path), val_share=0.0).names == ("sky", "road")
    names.write_bytes(b"b\xfcrette")
    with pytest.raises(DataError, match="not UTF-8"):
        open_masks(str(tmp_path))


def test_numbers_with_gaps_need_names(tmp_path):
    write(tmp_path, "a", numbers((0, 7), (200, 255)))
    with pytest.raises(DataError, match=r"numbers 0, 7, 200, with gaps(.|\n)*FOLDER@NAMES.txt"):
        label_map(open_masks(str(tmp_path), val_share=0.0))
    write(tmp_path, "a", numbers((0, 1), (11, 1)))
    assert label_map(open_masks(str(tmp_path), val_share=0.0), ignore=(11,)).names == ("0", "1")


def test_a_number_of_no_class_is_refused():
    labels = LabelMap(("a", "b"), (0, 1))
    with pytest.raises(ImageDecodeError, match="class number 7 of no class; the classes have 0, 1, void 255"):
        labels.encode(numbers((0, 7)), "x.png")


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_masks_are_read_as_numbers(tmp_path, mode):
    stored = numbers((0, 1), (1, 0)) if mode == "1" else numbers((0, 3), (200, 255))
    if mode == "P":
        image = mask_image(stored)
        assert image.mode == "P" and image.convert("RGB").getpixel((1, 0)) == tuple(palette(4)[3])
    else:
        values = stored.astype(bool) if mode == "1" else stored.astype(np.uint16 if mode == "I;16" else np.uint8)
        image = Image.fromarray(values)
    image.save(tmp_path / "m.png")
    assert open_mask(tmp_path / "m.png").tolist() == stored.tolist()


def test_large_numbers_are_written_in_16_bits(tmp_path):
    mask_image(np.array([[0, 1000]])).save(tmp_path / "m.png")
    assert open_mask(tmp_path / "m.png").tolist() == [[0, 1000]]


def test_colours_and_jpegs_are_no_numbers(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "c.png")
    with pytest.raises(ImageDecodeError, match="colour image"):
        open_mask(tmp_path / "c.png")
    Image.new("L", (3, 3)).save(tmp_path / "c.jpg")
    with pytest.raises(ImageDecodeError, match="PNG is usual"):
        open_mask(tmp_path / "c.jpg")


def test_the_check_lists_every_fault(tmp_path):
    good = numbers((0, 1), (1, 0))
    write(tmp_path, "good", good)
    write(tmp_path, "size", good, size=(5, 2))
    write(tmp_path, "number", numbers((0, 9), (1, 1)))
    write(tmp_path, "empty", numbers((255, 255), (2, 2)))
    write(tmp_path, "lonely", good)
    (tmp_path / "trainannot" / "lonely.png").unlink()
    Image.fromarray(good).save(tmp_path / "trainannot" / "other.png")
    write(tmp_path, "broken", good)
    (tmp_path / "trainannot" / "broken.png").write_bytes(b"no image")
    write(tmp_path, "colour", good)
    Image.new("RGB", (2, 2)).save(tmp_path / "trainannot" / "colour.png")
    write(tmp_path, "turned", good)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (2, 2)).save(tmp_path / "train" / "turned.jpg", exif=exif)
    write(tmp_path, "new", numbers((0, 1)), images="val")
    (tmp_path / "classes.txt").write_text("sky\nroad\nvoid\n")
    with pytest.raises(DataError, match="no mask of this name in trainannot/"):
        open_masks(str(tmp_path))
    report = check_masks(open_masks(str(tmp_path), bad="list"), workers=0)
    found = {Path(problem.id).stem: problem.kind for problem in report.bad}
    assert found == {
        "lonely": "no mask",
        "size": "mask size",
        "number": "class number",
        "empty": "empty mask",
        "broken": "format",
        "colour": "mask colour",
        "turned": "orientation",
    }
    assert any("1 masks have no image, first trainannot/other.png" in text for text in report.warnings)
    assert report.to_dict()["kinds"]["mask size"] == 1 and "sky" in "\n".join(report.lines())


def test_two_files_of_one_stem_are_named(tmp_path):
    for stem in ("0", "1", "2", "3"):
        write(tmp_path, stem, numbers((0, 1)))
    Image.new("RGB", (2, 1)).save(tmp_path / "train" / "0.png")
    Image.new("L", (2, 1)).save(tmp_path / "trainannot" / "1.bmp")
    with pytest.raises(DataError, match=r"2 problems(.|\n)*train/0\.jpg: 0\.png beside it has the same stem"):
        open_masks(str(tmp_path))
    kept = open_masks(str(tmp_path), val_share=0.0, bad="skip").require("train")
    assert kept.ids == ("train/2.jpg", "train/3.jpg")
    report = check_masks(open_masks(str(tmp_path), bad="list"), workers=0)
    assert [(one.id, one.kind) for one in report.bad] == [("train/0.jpg", "twice"), ("trainannot/1.bmp", "twice")]
    (tmp_path / "train" / "more").mkdir()
    (tmp_path / "train" / "0.png").rename(tmp_path / "train" / "more" / "0.png")
    assert [one.kind for one in open_masks(str(tmp_path), bad="list").problems] == ["twice", "no mask"]


@pytest.mark.parametrize("other", ["images/train", "train/images", "images/training"])
def test_two_folders_of_one_split_are_named(tmp_path, other):
    write(tmp_path, "a", numbers((0, 1)), images="images/train" if other == "train/images" else "train/images")
    write(tmp_path, "b", numbers((0, 1)), images=other)
    with pytest.raises(DataError, match=r"/: .*/ has images of train too; put all of them into one folder"):
        open_masks(str(tmp_path))
    assert len(open_masks(str(tmp_path), val_share=0.0, bad="skip").require("train")) == 1


def test_folders_without_masks_are_refused(tmp_path):
    with pytest.raises(VitrailError, match=r"no folder with images and masks at(.|\n)*trainannot"):
        open_masks(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="no folders of images and masks"):
        open_masks(str(tmp_path))
    write(tmp_path, "a", numbers((0, 1)))
    with pytest.raises(VitrailError, match="no file of class names"):
        open_masks(f"{tmp_path}@{tmp_path}/names.txt")


@pytest.mark.shared
def test_camvid_has_the_published_counts(shared: Path):
    names = Path(__file__).parents[2] / "recipes" / "camvid.txt"
    data = open_masks(f"{shared / 'data' / 'camvid'}@{names}")
    assert {split: len(samples) for split, samples in data} == {"train": 367, "val": 101, "test": 233}
    labels = label_map(data)
    assert len(labels.names) == 11 and labels.names[10] == "bicyclist" and labels.ignore == (11, 255)
    image, mask = data.require("test").pair(0)
    assert image.size == (480, 360) and labels.encode(mask).max() <= 10
