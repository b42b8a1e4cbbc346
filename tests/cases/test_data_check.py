"""`vitrail data check --task NAME` runs to its end for every task, on good data and on bad."""

import json

import numpy as np
import pytest
from PIL import Image

from vitrail.cli import main
from vitrail.data.boxes.coco import write_coco
from vitrail.data.boxes.dataset import BoxRecord, BoxSet
from vitrail.tasks import TASKS


def image(path, side=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def boxes(root, box):
    records = [
        BoxRecord(
            image(root / "images" / f"{i}.png"), f"{i}.png", (32, 32), np.array([box]), np.array([0]), np.array([False])
        )
        for i in range(4)
    ]
    write_coco(BoxSet("boxes train", ("cell",), records), root / "train.json")
    return str(root)


def masks(root, size):
    for i in range(4):
        image(root / "images" / f"{i}.png")
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full((size, 32), i % 2, dtype=np.uint8)).save(root / "masks" / f"{i}.png")
    return str(root)


def images(root, broken=False):
    for i in range(4):
        image(root / f"{i}.png", 64)
    if broken:
        (root / "3.png").write_bytes((root / "3.png").read_bytes()[:99])
    return str(root)


def labels(root):
    for i in range(4):
        image(root / f"{i}.png")
    return text(root / "labels.csv", "path,labels\n0.png,cat;dog\n1.png,cat\n2.png,\n3.png,dog\n")


def text(path, content):
    path.write_text(content)
    return str(path)


SENTENCES = "A dog runs.\tEin Hund läuft.\nA cat sits.\tEine Katze sitzt.\nBirds fly.\tVögel fliegen.\n"
LABELS = "text,label\ngood film,1\nbad film,0\nfine,1\npoor,0\n"
GOOD = {
    "classify": lambda root: "digits",
    "complete": lambda root: "digits",
    "detect": lambda root: boxes(root, [2.0, 3.0, 9.0, 9.0]),
    "language": lambda root: text(root / "a.txt", "To be, or not to be.\n" * 99),
    "multilabel": lambda root: labels(root),
    "parts": lambda root: "shapes:2",
    "points": lambda root: "shapes:2",
    "pretrain": lambda root: text(root / "a.txt", "To be, or not to be.\n\nThat is it.\n" * 99),
    "restore": lambda root: images(root),
    "segment": lambda root: masks(root, 32),
    "sentiment": lambda root: text(root / "a.csv", LABELS),
    "translate": lambda root: text(root / "a.tsv", SENTENCES),
}
BAD = {
    "detect": lambda root: boxes(root, [40.0, 40.0, 50.0, 50.0]),
    "restore": lambda root: images(root, broken=True),
    "segment": lambda root: masks(root, 16),
    "translate": lambda root: text(root / "a.tsv", SENTENCES + "Fish.\t\n"),
}


@pytest.mark.parametrize("task", TASKS)
def test_good_data_is_counted(task, tmp_path, capsys):
    assert main(["data", "check", GOOD[task](tmp_path), "--task", task]) == 0
    assert "everything can be used" in capsys.readouterr().out


@pytest.mark.parametrize("task", BAD)
def test_bad_samples_are_listed(task, tmp_path, capsys):
    assert main(["data", "check", BAD[task](tmp_path), "--task", task, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["bad"]
