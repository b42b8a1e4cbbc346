"""Drawn images with boxes and polygons: light squares and dark discs on noise."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vitrail.data.boxes.coco import write_coco
from vitrail.data.boxes.dataset import BoxRecord, BoxSet


def draw_squares(folder: Path, count: int = 12) -> Path:
    """Write a data set in COCO's layout and return its folder."""
    rng, records = np.random.default_rng(3), []
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        image = Image.fromarray(rng.integers(90, 160, (48, 64, 3), dtype=np.uint8))
        pen, boxes, outlines = ImageDraw.Draw(image), [], []
        for label, (x, y) in enumerate(rng.integers(0, 26, (2, 2)).tolist()):
            box = (x + 30 * label, y, x + 30 * label + 12, y + 12)
            (pen.ellipse if label else pen.rectangle)(box, fill="black" if label else "white")
            boxes.append([box[0], box[1], box[2] + 1, box[3] + 1])
            a, b, c, d = boxes[-1]
            outlines.append([[a, b, c, b, c, d, a, d]])
        path = folder / "images" / f"{number}.png"
        image.save(path)
        plain = np.array(boxes, dtype=float), np.arange(2), np.zeros(2, bool)
        records.append(BoxRecord(path, path.name, (64, 48), *plain, tuple(outlines)))
    write_coco(BoxSet("toy train", ("square", "disc"), records), folder / "train.json")
    return folder
