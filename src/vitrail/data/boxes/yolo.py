"""YOLO text: `labels/NAME.txt` with a line `class cx cy width height` (shares of the image) or a polygon an object.

Classes and splits are in `data.yaml` (`names`, `train`, `val`, `test`), or in `classes.txt` next to `images/train` and
`labels/train`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vitrail.data.boxes.dataset import BoxRecord, BoxSet, BoxSplits, Orientation, unique_classes
from vitrail.data.image_io import EXTENSIONS
from vitrail.data.text_lines import read_class_lines
from vitrail.errors import DataError

SPLITS = ("train", "val", "test")


def find_yolo(root: Path) -> Path | None:
    """Return the file with the classes: `data.yaml` (or any .yaml with `names`), or `classes.txt`; None without.

    Example:
        >>> find_yolo(Path("no/such/folder")) is None
        True
    """
    if root.is_file():
        return root if root.suffix in (".yaml", ".yml") else None
    files = [*sorted(root.glob("*.yaml")), *sorted(root.glob("*.yml"))] if root.is_dir() else []
    named = [path for path in files if "names" in (_yaml(path) or {})]
    if named:
        return named[0]
    listed = root / "classes.txt"
    return listed if listed.is_file() and (root / "labels").is_dir() else None


def read_yolo(path: Path, name: str) -> BoxSplits:
    """Read a YOLO data set from the file that `find_yolo` returned.

    Raises:
        DataError: a file or a line is not as YOLO has it, or two images have one label file.
    """
    if path.suffix == ".txt":
        names: Any = read_class_lines(path)
        values: dict[str, Any] = {
            split: f"images/{split}" for split in SPLITS if (path.parent / "images" / split).is_dir()
        }
        values = values or {"train": "images"}
    else:
        values = _yaml(path) or {}
        names = values.get("names")
    named = _named(names, path)
    classes = unique_classes(list(named.values()), str(path))
    places = {number: place for place, number in enumerate(named)}
    root = path.parent / str(values.get("path", ".")) if path.suffix != ".txt" else path.parent
    found: dict[str, list[Path]] = {}
    for split in SPLITS:
        where = values.get(split, values.get("valid") if split == "val" else None)
        if where:
            found[split] = _images(path.parent, root, where)
    if not found:
        raise DataError(f"{path} names no split: train, val or test.")
    _check_label_files(image for images in found.values() for image in images)
    parts = {
        split: BoxSet(f"{name} {split}", classes, [_record(each, places, path) for each in images])
        for split, images in found.items()
    }
    return BoxSplits(name, classes, parts)


def _named(names: Any, path: Path) -> dict[int, str]:
    """Return the classes of a file by number: places in a list, or the keys of a mapping, which may have gaps.

    Raises:
        DataError: there is neither, a key is no class number, or a class has no name.
    """
    if not isinstance(names, list | dict):
        raise DataError(f"{path} has no list of class names ('names').")
    found: dict[int, str] = {}
    for key, name in names.items() if isinstance(names, dict) else enumerate(names):
        text = str(key)
        if isinstance(key, bool) or not (text.isascii() and text.isdecimal()):
            raise DataError(f"{path}: '{text}' in 'names' is no class number; keys are whole numbers from 0.")
        if int(text) in found:
            raise DataError(f"{path} names class {int(text)} twice ('names'). Leave one of them.")
        if name is None or not str(name).strip():
            raise DataError(f"{path}: class {int(text)} has no name in 'names'. Give it one.")
        found[int(text)] = str(name)
    return dict(sorted(found.items()))


def _yaml(path: Path) -> dict[str, Any] | None:
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no YAML file: {error}") from error
    return values if isinstance(values, dict) else None


def _images(beside: Path, root: Path, where: Any) -> list[Path]:
    found: list[Path] = []
    for each in where if isinstance(where, list) else [where]:
        places = [root / str(each), beside / str(each), beside / str(each).removeprefix("../")]
        folder = next((place for place in places if place.exists()), None)
        if folder is None:
            raise DataError(f"There is no {places[0]} (named in the YAML file).")
        if folder.is_file():
            lines = [line.strip() for line in folder.read_text().splitlines() if line.strip()]
            found += [path if path.is_absolute() else folder.parent / path for path in map(Path, lines)]
        else:
            found += sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    return found


def label_file(image: Path) -> Path:
    """Return the label file of an image: the last folder `images` of its path becomes `labels`, the ending `.txt`.

    Example:
        >>> label_file(Path("set/images/train/1.jpg")).as_posix()
        'set/labels/train/1.txt'
    """
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _check_label_files(images: Iterable[Path]) -> None:
    """Refuse two images whose annotations would be read from one file."""
    owners: dict[Path, Path] = {}
    for image in images:
        path = label_file(image)
        first = owners.setdefault(path, image)
        if first != image and path.is_file():
            raise DataError(
                f"{path} belongs to {first.name} and {image.name}: labels have the stem of their image.\n"
                "Keep one of the images, or give each a stem and a label file of its own."
            )


def _record(image: Path, places: Mapping[int, int], source: Path) -> BoxRecord:
    """Read the label file of an image; `places` has the place of each class number that `source` names."""
    path, size = label_file(image), Orientation.of(image).upright
    boxes, labels, outlines, areas = [], [], [], []
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else [], 1):
        words = line.split()
        if not words:
            continue
        try:
            label, values = int(words[0]), np.array(words[1:], dtype=np.float64)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if label not in places:
            raise DataError(
                f"{path}, line {number}: class {label} has no name in {source}; it names {_few(list(places))}."
            )
        if len(values) == 4:
            centre, half = values[:2] * size, values[2:] * size / 2
            boxes.append([*(centre - half), *(centre + half)])
            areas.append(float((2 * half).prod()))
        elif len(values) >= 6 and len(values) % 2 == 0:
            points = values.reshape(-1, 2) * size
            boxes.append([*points.min(0), *points.max(0)])
            outlines.append([points.ravel().tolist()])
            areas.append(polygon_area(points))
        else:
            raise DataError(
                f"{path}, line {number}: {len(values)} numbers after the class; 4, or a polygon, are needed."
            )
        labels.append(places[label])
    return BoxRecord(
        image,
        image.name,
        size,
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(labels, dtype=np.int64),
        np.zeros(len(boxes), dtype=bool),
        tuple(outlines) if outlines and len(outlines) == len(boxes) else (),
        np.array(areas) if outlines else None,
    )


def polygon_area(points: np.ndarray) -> float:
    """Return the area of a simple polygon by the shoelace formula, `|sum(x_i y_(i+1) - x_(i+1) y_i)| / 2`.

    As with boxes, what lies outside the image counts. Inside it, this is the area of pycocotools up to rasterisation.

    Args:
        points: `(n, 2)` corners x, y in order.

    Example:
        >>> polygon_area(np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]]))
        6.0
    """
    x, y = (points - points[0]).T  # from the first corner: small numbers lose less to rounding
    return float(abs(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2)


def _few(numbers: list[int]) -> str:
    """Return class numbers in order as text, without gaps as a range.

    Example:
        >>> _few([0, 1, 2, 3]), _few([1, 2, 5])
        ('0 to 3', '1, 2, 5')
    """
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def write_yolo(boxes: BoxSet, folder: Path) -> None:
    """Write `labels/SPLIT/NAME.txt` and `data.yaml`; images are not copied. Objects to be ignored are left out.

    Raises:
        DataError: an image has no stated size, which YOLO's shares need.
    """
    split = boxes.name.rpartition(" ")[2]
    target = folder / "labels" / split
    target.mkdir(parents=True, exist_ok=True)
    for record in boxes.records:
        if record.size is None:
            raise DataError(f"{record.id} has no stated size; YOLO's boxes are shares of it.")
        lines = []
        for box, label in zip(record.boxes[~record.ignore], record.labels[~record.ignore], strict=True):
            centre, extent = (box[:2] + box[2:]) / 2 / record.size, (box[2:] - box[:2]) / record.size
            lines.append(" ".join([str(int(label)), *(repr(float(v)) for v in (*centre, *extent))]) + "\n")
        (target / f"{record.path.stem}.txt").write_text("".join(lines))
    path = folder / "data.yaml"
    known = (_yaml(path) or {}) if path.is_file() else {}
    known |= {"names": dict(enumerate(boxes.classes)), split: f"images/{split}"}
    path.write_text(yaml.safe_dump(known, sort_keys=False))
