"""Images with boxes: three layouts, their traps, and faults that are found before a training."""

import json

import numpy as np
import pytest
from PIL import Image

from vitrail.data.boxes.coco import write_coco
from vitrail.data.boxes.convert import convert_boxes
from vitrail.data.boxes.dataset import BoxRecord, BoxSet
from vitrail.data.boxes.open import open_boxes
from vitrail.data.boxes.voc import write_voc
from vitrail.data.boxes.yolo import write_yolo
from vitrail.data.view import whole_view
from vitrail.errors import DataError, VitrailError
from vitrail.tasks.detect.batches import rasterise, run_lengths
from vitrail.tasks.detect.check import check_boxes

CLASSES = ("cell", "plate")


def save_image(path, size=(64, 48), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(path, exif=exif)


def random_set(folder, images=10, objects=100):
    """1,000 boxes with fractions of pixels in ten images."""
    rng, records = np.random.default_rng(1), []
    for number in range(images):
        path = folder / f"{number}.png"
        save_image(path)
        low = rng.uniform(0, 30, (objects, 2))
        boxes = np.concatenate([low, low + rng.uniform(1, 15, (objects, 2))], axis=1)
        labels = rng.integers(0, 2, objects)
        labels[:2] = (0, 1)  # so that every file order gives the same classes
        records.append(BoxRecord(path, path.name, (64, 48), boxes, labels, rng.random(objects) < 0.1))
    return BoxSet("toy train", CLASSES, records)


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_round_trip_of_a_thousand_boxes(layout, tmp_path):
    images = tmp_path / {"voc": "JPEGImages", "coco": "images", "yolo": "images/train"}[layout]
    data = random_set(images)
    if layout == "voc":
        write_voc(data, tmp_path)
    elif layout == "coco":
        write_coco(data, tmp_path / "train.json")
    else:
        write_yolo(data, tmp_path)
    again = open_boxes(str(tmp_path), val_share=0).require("train")
    assert again.classes == CLASSES and again.ids == data.ids
    for before, after in zip(data.records, again.records, strict=True):
        kept = ~before.ignore if layout == "yolo" else slice(None)
        assert np.abs(after.boxes - before.boxes[kept]).max() < 1e-6
        assert (after.labels == before.labels[kept]).all() and after.size == before.size
        assert layout == "yolo" or (after.ignore == before.ignore).all()


def voc_file(folder, box, size=(64, 48), name="cell"):
    edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    text = f"<annotation>{stated}<object><name>{name}</name><bndbox>{edges}</bndbox></object></annotation>"
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / "a.xml").write_text(text)


@pytest.mark.parametrize(("box", "edges"), [((1, 1, 64, 48), (0, 0, 64, 48)), ((0, 0, 64, 48), (0, 0, 64, 48))])
def test_voc_counts_from_one_unless_a_zero_shows_that_it_does_not(box, edges, tmp_path):
    save_image(tmp_path / "JPEGImages" / "a.png")
    voc_file(tmp_path, box)
    [record] = open_boxes(str(tmp_path), val_share=0).require("train").records
    assert record.boxes.tolist() == [list(edges)]


def test_of_two_images_of_one_stem_voc_takes_the_named_one(tmp_path):
    save_image(tmp_path / "JPEGImages" / "a.jpg")
    voc_file(tmp_path, (1, 1, 9, 9))
    (tmp_path / "JPEGImages" / "a.txt").write_text("no image")
    assert open_boxes(str(tmp_path), val_share=0).require("train").ids == ["a.jpg"]
    save_image(tmp_path / "JPEGImages" / "a.png")
    with pytest.raises(DataError, match=r"a\.xml belongs to a\.jpg and a\.png"):
        open_boxes(str(tmp_path))
    path = tmp_path / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<size>", "<filename>a.jpg</filename><size>"))
    assert open_boxes(str(tmp_path), val_share=0).require("train").ids == ["a.jpg"]


def test_boxes_of_the_stored_orientation_are_refused(tmp_path):
    save_image(tmp_path / "JPEGImages" / "a.jpg", orientation=6)  # upright it is 48 x 64
    voc_file(tmp_path, (1, 1, 9, 9), size=(64, 48))
    data = open_boxes(str(tmp_path), val_share=0)
    [problem] = check_boxes(data).bad
    assert "EXIF" in problem.reason
    with pytest.raises(DataError, match="EXIF"):
        data.require("train").image(0)
    voc_file(tmp_path, (1, 1, 9, 9), size=(48, 64))
    data = open_boxes(str(tmp_path), val_share=0)
    assert not check_boxes(data, read=True).bad and data.require("train").image(0).size == (48, 64)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 10, 9, 20), "without area"),
        ((70, 1, 80, 9), "outside the image"),
        (("nan", 1, 8, 8), "not a finite number"),
    ],
)
def test_faulty_boxes_are_listed_before_training(box, reason, tmp_path):
    save_image(tmp_path / "JPEGImages" / "a.png")
    voc_file(tmp_path, box)
    splits = open_boxes(str(tmp_path), val_share=0)
    check = check_boxes(splits)
    assert reason in check.bad[0].reason
    with pytest.raises(DataError, match="--bad skip"):
        check.require_good()
    assert not len(check.without_bad(splits).require("train"))


def test_unreadable_and_hostile_files_are_refused_by_name(tmp_path):
    save_image(tmp_path / "JPEGImages" / "a.png")
    voc_file(tmp_path, (1, 1, 2, 2))
    path = tmp_path / "Annotations" / "a.xml"
    for text in ("<annotation><object></annotation>", "<annotation><object><name>x</name></object></annotation>"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"a\.xml is no VOC annotation"):
            open_boxes(str(tmp_path))
    path.write_text('<!DOCTYPE a [<!ENTITY b "cc">]><annotation/>')
    with pytest.raises(DataError, match="entities"):
        open_boxes(str(tmp_path))
    with pytest.raises(VitrailError, match="no data at"):
        open_boxes(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="PASCAL VOC"):
        open_boxes(str(tmp_path / "empty"))


def test_coco_categories_crowds_and_outlines(tmp_path):
    save_image(tmp_path / "images" / "a.png")
    polygon = [[10, 10, 20, 10, 20, 20, 10, 20]]
    values = {
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 10, 10, 10], "segmentation": polygon, "iscrowd": 1}
        ],
        "categories": [{"id": 90, "name": "plate"}, {"id": 3, "name": "cell"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(values))
    [record] = open_boxes(str(tmp_path), val_share=0).require("train").records
    assert record.labels.tolist() == [1] and record.ignore.all() and record.boxes.tolist() == [[10, 10, 20, 20]]
    mask = rasterise(record, 0, whole_view((64, 48), (64, 48)), (64, 48))
    assert mask.sum() == 100 and mask[10:20, 10:20].all()
    values["annotations"][0]["image_id"] = 8
    (tmp_path / "train.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="not among its images"):
        open_boxes(str(tmp_path))


def test_areas_of_coco_are_kept_and_those_of_boxes_fill_in(tmp_path):
    save_image(tmp_path / "images" / "a.png")
    boxes = [{"image_id": 7, "category_id": 1, "bbox": [10, 10, 10, 10]} for _ in range(3)]
    values = {
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [{**boxes[0], "area": 33.5}, {**boxes[1], "area": None}, boxes[2]],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(values))
    for _ in range(2):  # as read, and as written
        data = open_boxes(str(tmp_path), val_share=0).require("train")
        assert data.records[0].areas.tolist() == [33.5, 100, 100]
        write_coco(data, tmp_path / "train.json")
    assert json.loads((tmp_path / "train.json").read_text())["annotations"][0]["area"] == 33.5
    for area in ("wide", float("nan"), -1, [3]):
        values["annotations"] = [{**boxes[0], "area": area}]
        (tmp_path / "train.json").write_text(json.dumps(values))
        with pytest.raises(DataError, match=r"an annotation of a\.png is wrong"):
            open_boxes(str(tmp_path))


def standard_coco(folder, splits=("train", "val")):
    """The files that COCO publishes, and an image of each split."""
    (folder / "annotations").mkdir()
    for split in splits:
        save_image(folder / f"{split}2017" / f"{split}.png")
        images = [{"id": 7, "file_name": f"{split}.png", "width": 64, "height": 48}]
        box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}
        animals = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        contents = {
            "captions": {"images": images, "annotations": [{"id": 1, "image_id": 7, "caption": "A cat."}]},
            "instances": {"images": images, "annotations": [box], "categories": animals},
            "person_keypoints": {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "person"}]},
            "panoptic": {"images": images, "annotations": [{"image_id": 7}], "categories": animals},
        }
        for kind, values in contents.items():
            (folder / "annotations" / f"{kind}_{split}2017.json").write_text(json.dumps(values))
    test = {"images": [{"id": 9, "file_name": "x.png"}], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(test))


@pytest.mark.parametrize("inside", [".", "annotations"])
def test_the_folder_that_coco_publishes(inside, tmp_path):
    standard_coco(tmp_path)
    data = open_boxes(str(tmp_path / inside))
    assert data.classes == ("cat", "dog") and list(data.parts) == ["train", "val"]
    assert [data.require(split).image(0).size for split in ("train", "val")] == [(64, 48)] * 2
    alone = open_boxes(str(tmp_path / "annotations" / "instances_val2017.json"), val_share=0).require("train")
    assert alone.ids == ["val.png"] and alone.image(0).size == (64, 48)


@pytest.mark.parametrize(
    ("key", "entry", "said"),
    [
        ("images", {"file_name": "a.png"}, r"images\[0\] has no id"),
        ("images", {"id": 1}, r"images\[0\] has no file_name"),
        ("images", {"id": 1, "file_name": None}, r"images\[0\] has None as file_name"),
        ("images", 7, r"images\[0\] is 7, no object"),
        ("annotations", "box", r"annotations\[0\] is 'box', no object"),
        ("categories", {"name": "cat"}, r"categories\[0\] has no id"),
        ("categories", {"id": 1}, r"categories\[0\] has no name"),
    ],
)
def test_an_entry_without_its_fields_is_named(key, entry, said, tmp_path):
    standard_coco(tmp_path, ["train"])
    path = tmp_path / "annotations" / "instances_train2017.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, key: [entry, *values[key]]}))
    with pytest.raises(DataError, match=said):
        open_boxes(str(tmp_path), val_share=0)


def test_files_without_boxes_are_read_only_if_no_other_has_any(tmp_path):
    standard_coco(tmp_path, ["train"])
    folder = tmp_path / "annotations"
    (folder / "instances_train2017.json").rename(folder / "train.json")
    (folder / "captions_train2017.json").rename(folder / "a_text_of_train.json")
    assert open_boxes(str(tmp_path), val_share=0).classes == ("cat", "dog")
    (folder / "train.json").unlink()
    assert open_boxes(str(tmp_path), val_share=0).classes == ("person",)
    (folder / "person_keypoints_train2017.json").unlink()
    with pytest.raises(DataError, match=r"a_text_of_train\.json is no COCO file .*'categories'"):
        open_boxes(str(tmp_path))
    (folder / "train.json").write_text("{")
    (folder / "a_text_of_train.json").unlink()
    with pytest.raises(DataError, match=r"train\.json is no COCO file"):
        open_boxes(str(tmp_path))


def test_run_lengths_go_down_the_columns():
    assert run_lengths({"counts": [1, 2, 3]}, (2, 3)).tolist() == [[0, 0], [1, 0], [1, 0]]
    with pytest.raises(DataError, match="do not fill"):
        run_lengths({"counts": [1]}, (2, 3))


def test_yolo_polygons_and_faulty_lines(tmp_path):
    save_image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "classes.txt").write_text("cell\nplate\n")
    labels = tmp_path / "labels" / "train" / "a.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("1 0.25 0.25 0.5 0.25 0.5 0.5\n")
    [record] = open_boxes(str(tmp_path), val_share=0).require("train").records
    assert record.boxes.tolist() == [[16, 12, 32, 24]] and record.labels.tolist() == [1] and record.outlines
    for line, message in (("2 0 0 1 1", "class 2"), ("0 1 1", "2 numbers"), ("x 0 0 1 1", "line 1")):
        labels.write_text(line)
        with pytest.raises(DataError, match=message):
            open_boxes(str(tmp_path))


def test_objects_of_yolo_polygons_have_the_area_of_the_polygon(tmp_path):
    save_image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "classes.txt").write_text("cell\n")
    labels = tmp_path / "labels" / "train" / "a.txt"
    labels.parent.mkdir(parents=True)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    disc = np.stack([0.5 + 0.3 * np.cos(angles), 0.5 + 0.4 * np.sin(angles)], axis=1)
    lines = ["0.25 0.25 0.5 0.25 0.5 0.5", " ".join(map(str, disc.ravel())), " ".join(map(str, disc[::-1].ravel()))]
    labels.write_text("".join(f"0 {line}\n" for line in lines))
    convert_boxes(str(tmp_path), "coco", tmp_path / "coco")
    annotations = json.loads((tmp_path / "coco" / "annotations" / "train.json").read_text())["annotations"]
    assert annotations[0]["area"] == 16 * 12 / 2
    assert annotations[1]["area"] == pytest.approx(annotations[2]["area"])
    masks = pytest.importorskip("pycocotools.mask")
    for each in annotations:
        [counts] = masks.frPyObjects(each["segmentation"], 48, 64)
        assert each["area"] == pytest.approx(float(masks.area(counts)), rel=0.1)
    labels.write_text(f"0 {lines[0]}\n0 0.5 0.5 0.5 0.5\n")
    [record] = open_boxes(str(tmp_path), val_share=0).require("train").records
    assert record.areas.tolist() == [96, 32 * 24]


def test_two_images_with_one_yolo_label_file_are_refused(tmp_path):
    for name in ("a.png", "a.jpg", "b.png", "b.jpg"):
        save_image(tmp_path / "images" / "train" / name)
    (tmp_path / "classes.txt").write_text("cell\n")
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    assert len(open_boxes(str(tmp_path), val_share=0).require("train")) == 4  # without labels nothing is shared
    (labels / "b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.raises(DataError, match=r"b\.txt belongs to b\.jpg and b\.png"):
        open_boxes(str(tmp_path))
    for split, name in (("train", "b.png"), ("val", "b.jpg")):
        (tmp_path / f"{split}.txt").write_text(f"images/train/{name}\n")
    (tmp_path / "data.yaml").write_text("names: [cell]\ntrain: train.txt\nval: val.txt\n")
    with pytest.raises(DataError, match=r"b\.txt belongs to b\.png and b\.jpg"):
        open_boxes(str(tmp_path))
    (tmp_path / "val.txt").write_text("images/train/b.png\n")  # one image twice, which the check of leakage names
    assert len(open_boxes(str(tmp_path)).require("val")) == 1


def test_empty_lines_of_yolo_classes_do_not_move_the_others(tmp_path):
    save_image(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    names = tmp_path / "classes.txt"
    names.write_text("cell\n\nplate\n")
    with pytest.raises(DataError, match=r"classes\.txt, line 2 is empty, but it stands for class 1"):
        open_boxes(str(tmp_path))
    names.write_bytes("cell\r\nb\u00fcrette\r\nplate\r\n \r\n\r\n".encode())
    assert open_boxes(str(tmp_path), val_share=0).classes == ("cell", "b\u00fcrette", "plate")
    names.write_bytes(b"b\xfcrette")
    with pytest.raises(DataError, match="not UTF-8"):
        open_boxes(str(tmp_path))


def yolo_set(folder, names, label):
    save_image(folder / "images" / "train" / "a.png")
    (folder / "data.yaml").write_text(f"names: {names}\ntrain: images/train\n")
    labels = folder / "labels" / "train" / "a.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text(f"{label} 0.5 0.5 0.5 0.5\n")
    data = open_boxes(str(folder), val_share=0).require("train")
    return [data.classes[i] for i in data.records[0].labels]


@pytest.mark.parametrize(
    "names", ["{1: cat, 2: dog, 7: owl}", "{7: owl, 2: dog, 1: cat}", "{'1': cat, 2: dog, 7: owl}"]
)
def test_keys_of_yolo_names_are_class_numbers(names, tmp_path):
    assert [yolo_set(tmp_path, names, number) for number in (1, 2, 7)] == [["cat"], ["dog"], ["owl"]]
    convert_boxes(str(tmp_path), "yolo", tmp_path / "again")
    again = open_boxes(str(tmp_path / "again"), val_share=0).require("train")
    assert again.classes == ("cat", "dog", "owl") and again.records[0].labels.tolist() == [2]
    for number in (0, 3, -1):
        with pytest.raises(DataError, match=rf"line 1: class {number} has no name in .*data\.yaml; it names 1, 2, 7"):
            yolo_set(tmp_path, names, number)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("{cat: 0}", "'cat' in 'names' is no class number"),
        ("{true: cat}", "'True' in 'names' is no class number"),
        ("{-1: cat}", "'-1' in 'names' is no class number"),
        ("{0: cat, '0': dog}", "names class 0 twice"),
        ("{0: cat, 1: }", "class 1 has no name"),
        ("[cat, '', dog]", "class 1 has no name"),
        ("cat", "no list of class names"),
    ],
)
def test_yolo_names_without_a_number_or_a_name_are_refused(names, message, tmp_path):
    with pytest.raises(DataError, match=message):
        yolo_set(tmp_path, names, 0)


def test_validation_is_held_out_the_same_way_every_time(tmp_path):
    write_coco(random_set(tmp_path / "images", objects=3), tmp_path / "train.json")
    first, second = (open_boxes(str(tmp_path), val_share=0.3) for _ in range(2))
    assert first.require("val").ids == second.require("val").ids and len(first.require("val")) == 3
    assert not set(first.require("val").ids) & set(first.require("train").ids)
