"""A data set of boxes in another layout: the same boxes, or a refusal."""

import json
import sys

import numpy as np
import pytest
from test_boxes import random_set, save_image

from vitrail.cli import main
from vitrail.data.boxes.coco import write_coco
from vitrail.data.boxes.convert import convert_boxes
from vitrail.data.boxes.open import open_boxes
from vitrail.errors import DataError, VitrailError
from vitrail.tasks.detect.result import Detections
from vitrail.tasks.detect.supervision import from_supervision, to_supervision


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    boxes = random_set(folder / "images", images=4, objects=30)
    write_coco(boxes, folder / "annotations" / "train.json")
    return folder


@pytest.mark.parametrize("way", [("voc", "yolo", "coco"), ("yolo", "voc", "coco")], ids="-".join)
def test_round_trip_through_all_layouts(source, tmp_path, way):
    here = source
    for to in way:
        done = convert_boxes(str(here), to, tmp_path / to)
        assert done.error <= 1e-6 and done.images == {"train": 4}
        here = tmp_path / to
    first, last = (open_boxes(str(path), 0.0).parts["train"] for path in (source, here))
    known = {record.id: record for record in last.records}
    for record in first.records:
        kept = ~record.ignore  # YOLO leaves the others out
        np.testing.assert_allclose(known[record.id].boxes, record.boxes[kept], rtol=0, atol=3e-6)
        assert [last.classes[i] for i in known[record.id].labels] == [first.classes[i] for i in record.labels[kept]]
        assert known[record.id].path.read_bytes() == record.path.read_bytes()


def test_losses_of_a_layout_are_reported(source, tmp_path, capsys):
    path = source / "annotations" / "train.json"
    values = json.loads(path.read_text())
    for number, each in enumerate(values["annotations"]):
        each["iscrowd"] = int(number == 0)
        each["area"] /= 1 + (number == 1)
    values["categories"].append({"id": 99, "name": "unseen"})
    path.write_text(json.dumps(values))
    assert main(["data", "convert", str(source), "--task", "detect", "--to", "yolo", "--out", str(tmp_path / "y")]) == 0
    printed = capsys.readouterr().out
    assert "1 objects to be ignored" in printed and "areas of objects in 1 images" in printed
    assert open_boxes(str(tmp_path / "y"), 0.0).classes[-1] == "unseen"
    assert "does not list: unseen" in " ".join(convert_boxes(str(source), "voc", tmp_path / "v").losses)
    convert_boxes(str(source), "coco", tmp_path / "c")
    before, after = (open_boxes(str(folder), 0.0).require("train").records for folder in (source, tmp_path / "c"))
    areas = {record.id: record.areas for record in after}
    assert all(np.allclose(record.areas, areas[record.id], rtol=1e-12) for record in before)


def test_refused_conversions_write_nothing(source, tmp_path):
    with pytest.raises(VitrailError, match=r"Unknown layout 'cocco'. Did you mean: coco"):
        convert_boxes(str(source), "cocco", tmp_path / "a")
    with pytest.raises(VitrailError, match="exists"):
        convert_boxes(str(source), "voc", source)
    values = json.loads((source / "annotations" / "train.json").read_text())
    other = source / "images" / "more"
    other.mkdir()
    save_image(other / "0.png")
    values["images"].append(
        {"id": 77, "file_name": "more/" + values["images"][0]["file_name"], "width": 64, "height": 48}
    )
    (other / values["images"][0]["file_name"]).write_bytes((other / "0.png").read_bytes())
    (source / "annotations" / "train.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="belong to several images"):
        convert_boxes(str(source), "voc", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_commands_are_refused_by_name(source, capsys):
    assert main(["data", "convert", "digits", "--to", "coco", "--out", "x"]) == 2
    assert "--task detect" in capsys.readouterr().err
    assert main(["data", "convert", str(source), "--task", "detect"]) == 2
    assert main(["data", "check", str(source), "--task", "detect", "--to", "coco"]) == 2


class Foreign:
    """The fields of supervision.Detections."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def __len__(self):
        return len(self.xyxy)


def test_supervision_and_back(monkeypatch):
    found = Detections("a.jpg", ("cat", "dog"), (0.75, 0.5), ((1, 2, 3, 4), (5, 6, 7, 8.5)), (0, 1), (9, 9))
    module = type(sys)("supervision")
    module.Detections = Foreign
    monkeypatch.setitem(sys.modules, "supervision", module)
    foreign = to_supervision(found)
    assert from_supervision(foreign, "a.jpg", (9, 9)) == found
    foreign.confidence = foreign.confidence[::-1]
    assert from_supervision(foreign, "a.jpg", (9, 9)).labels == ("dog", "cat")
    foreign.confidence, foreign.data = None, {}
    assert from_supervision(foreign, "a.jpg", (9, 9)).labels == ("0", "1")
    assert len(to_supervision(Detections("b.jpg"))) == 0
