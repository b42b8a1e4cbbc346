"""COCO json: images, annotations with `bbox` (left, top, width, height), `area` and `segmentation`, categories."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.boxes.dataset import BoxRecord, BoxSet, BoxSplits, unique_classes
from vitrail.errors import DataError

SPLITS = ("train", "val", "test")

WITHOUT_BOXES = ("captions", "image_info", "panoptic")
"""Names of COCO's own files that have no boxes; they are read only if there is nothing else."""

SECOND = ("person_keypoints", "stuff")
"""Names of COCO's own files whose boxes are not those of its 80 classes."""


def find_coco(root: Path) -> dict[str, Path]:
    """Return the COCO files of a folder by split: `annotations/instances_train2017.json`, `train.json`,
    `train/_annotations.coco.json`; a .json file alone is the split `train`.

    Of several files of a split, `instances_*` comes first, and a file without boxes is taken only if no other has any.

    Example:
        >>> find_coco(Path("no/such/folder"))
        {}
    """
    if root.is_file():
        return {"train": root} if root.suffix == ".json" else {}
    if not root.is_dir():
        return {}
    files = [*root.glob("*.json"), *root.glob("annotations/*.json"), *root.glob("*/_annotations.coco.json")]
    candidates: dict[str, list[Path]] = defaultdict(list)
    for path in sorted([path for path in files if not path.name.startswith(WITHOUT_BOXES)] or files):
        where = path.parent.name if path.name.startswith("_") else path.stem
        if splits := [split for split in SPLITS if split in where.lower().replace("valid", "val")]:
            candidates[splits[0]].append(path)
    return {split: _preferred(candidates[split]) for split in SPLITS if split in candidates}


def _preferred(paths: list[Path]) -> Path:
    """Return the file that has the boxes of a split."""
    instances = [path for path in paths if path.name.startswith("instances")]
    if len(paths) == 1 or len(instances) == 1:
        return (instances or paths)[0]
    ordered = sorted(paths, key=lambda path: (path not in instances, path.name.startswith(SECOND), path))
    return next((path for path in ordered if _may_have_boxes(path)), ordered[0])


def _may_have_boxes(path: Path) -> bool:
    """Return False if the contents of a file are of another kind, such as captions; damaged files are not judged."""
    try:
        values = json.loads(path.read_text())
    except ValueError:
        return True
    keys = ("images", "annotations", "categories")
    if not isinstance(values, dict) or not all(isinstance(values.get(key), list) for key in keys):
        return False
    return all(isinstance(each, dict) and "bbox" in each for each in values["annotations"][:1])


def read_coco(files: dict[str, Path], root: Path, name: str) -> BoxSplits:
    """Read COCO files; all must have the same categories.

    Raises:
        DataError: a file is no COCO file, an image is missing, or categories differ.
    """
    read = {split: _load(path) for split, path in files.items()}
    categories = {split: {each["id"]: str(each["name"]) for each in one["categories"]} for split, one in read.items()}
    first = next(iter(categories.values()))
    if differing := [split for split, each in categories.items() if each != first]:
        raise DataError(f"{name}: the categories of {differing[0]} are not those of {next(iter(categories))}.")
    order = sorted(first)
    classes = unique_classes([first[key] for key in order], name)
    places = {key: place for place, key in enumerate(order)}
    folder = root if root.is_dir() else root.parent
    parts = {
        split: BoxSet(f"{name} {split}", classes, _records(one, files[split], folder, split, places))
        for split, one in read.items()
    }
    return BoxSplits(name, classes, parts)


_NEEDED = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
"""Fields of an entry without which nothing can be read; those of annotations are checked with their image."""


def _check_entry(each: Any, where: str, needed: tuple[str, ...]) -> None:
    if not isinstance(each, dict):
        raise TypeError(f"{where} is {each!r}, no object")
    for name in needed:
        if not isinstance(each.get(name), int | str):
            raise TypeError(f"{where} has {'no ' if name not in each else f'{each[name]!r} as '}{name}")


def _load(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
        for key in ("images", "annotations", "categories"):
            if not isinstance(values[key], list):
                raise TypeError(f"'{key}' is no list")
            for place, each in enumerate(values[key]):
                _check_entry(each, f"{key}[{place}]", _NEEDED[key])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no COCO file (images, annotations, categories): {error}") from error
    return values


def _records(values: dict[str, Any], path: Path, root: Path, split: str, places: dict[Any, int]) -> list[BoxRecord]:
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for each in values["annotations"]:
        by_image[each.get("image_id")].append(each)
    places_to_look = [path.parent]
    words = dict.fromkeys([*(each for each in SPLITS if each in path.stem.lower()), split])
    for base in dict.fromkeys([root, path.parent.parent if path.parent.name == "annotations" else root]):
        places_to_look += [base, base / "images"]
        for word in words:
            places_to_look += [*sorted(base.glob(f"*{word}*")), *sorted(base.glob(f"images/*{word}*"))]
    records = []
    for image in values["images"]:
        found = by_image.pop(image["id"], [])
        try:
            boxes = np.array([each["bbox"] for each in found], dtype=np.float64).reshape(-1, 4)
            labels = np.array([places[each["category_id"]] for each in found], dtype=np.int64)
            areas = _areas(found, boxes)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: an annotation of {image['file_name']} is wrong: {error!r}") from error
        edges = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        crowd = np.array([bool(each.get("iscrowd", 0)) for each in found], dtype=bool)
        size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
        outlines = tuple(each.get("segmentation") for each in found)
        file = _locate(image["file_name"], places_to_look)
        records.append(
            BoxRecord(file, image["file_name"], size, edges, labels, crowd, outlines if all(outlines) else (), areas)
        )
    if by_image:
        raise DataError(
            f"{path}: {len(by_image)} annotated images are not among its images, first {next(iter(by_image))}."
        )
    return records


def _areas(found: list[dict[str, Any]], boxes: np.ndarray) -> np.ndarray | None:
    """Return the areas of annotations, that of the box where none is stated; None if no annotation has one."""
    stated = [each.get("area") for each in found]
    if all(area is None for area in stated):
        return None
    of_boxes = boxes[:, 2:].prod(1).tolist()
    areas = np.array([box if area is None else area for area, box in zip(stated, of_boxes, strict=True)], np.float64)
    if areas.ndim != 1 or (wrong := ~np.isfinite(areas) | (areas < 0)).any():
        got = areas[wrong][0] if areas.ndim == 1 else stated[0]
        raise ValueError(f"area {got}; a number of square pixels is needed, or none for that of the box")
    return areas


def _locate(name: str, folders: list[Path]) -> Path:
    """Return the first existing file of that name, or the first place if there is none."""
    candidates = [folder / name for folder in folders]
    return next((path for path in candidates if path.is_file()), candidates[0])


def write_coco(boxes: BoxSet, path: Path) -> None:
    """Write a COCO file; ids count from 1. Images without a stated size have 0 x 0."""
    annotations = []
    for number, record in enumerate(boxes.records, 1):
        objects = zip(record.boxes, record.labels, record.ignore, record.areas.tolist(), strict=True)
        for i, (box, label, ignore, area) in enumerate(objects):
            left, top, right, bottom = map(float, box)
            wide, tall = right - left, bottom - top
            each = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1}
            each |= {"bbox": [left, top, wide, tall], "area": area, "iscrowd": int(ignore)}
            annotations.append(each | ({"segmentation": record.outlines[i]} if record.outlines else {}))
    images = [
        {
            "id": number,
            "file_name": record.id,
            "width": (record.size or (0, 0))[0],
            "height": (record.size or (0, 0))[1],
        }
        for number, record in enumerate(boxes.records, 1)
    ]
    categories = [{"id": place, "name": name} for place, name in enumerate(boxes.classes, 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
