"""Detections of many images as one file in COCO's layout."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def coco_file(rows: Iterable[Mapping[str, Any]], classes: Sequence[str], root: str) -> bytes:
    """Return images, annotations with scores, and categories as JSON; ids count from 1.

    Boxes are left, top, width, height in pixels of the upright images. Images that could not be read are left out, and
    those without objects are listed without annotations.

    Args:
        rows: `Detections.to_dict()` of each image.
        classes: names of all classes, in the order of their numbers.
        root: folder that file names are relative to.

    Example:
        >>> found = {"index": 0, "score": 0.9, "box": [1.0, 2.0, 30.0, 40.0]}
        >>> row = {"path": "in/a.jpg", "width": 64, "height": 48, "objects": [found]}
        >>> written = json.loads(coco_file([row], ["cell"], "in"))
        >>> written["images"][0]["file_name"], written["annotations"][0]["bbox"]
        ('a.jpg', [1.0, 2.0, 29.0, 38.0])
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows:
        if "error" in row:
            continue
        place = {"id": len(images) + 1, "file_name": os.path.relpath(row["path"], root) if root else row["path"]}
        images.append(place | {"width": row["width"], "height": row["height"]})
        for found in row["objects"]:
            left, top, right, bottom = found["box"]
            wide, tall = round(right - left, 3), round(bottom - top, 3)
            each = {"id": len(annotations) + 1, "image_id": len(images), "category_id": found["index"] + 1}
            each |= {"bbox": [left, top, wide, tall], "area": round(wide * tall, 3), "iscrowd": 0}
            annotations.append(each | {"score": found["score"]})
    categories = [{"id": place, "name": name} for place, name in enumerate(classes, 1)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()
