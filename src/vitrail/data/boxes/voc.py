"""PASCAL VOC: one XML file an image in `Annotations/`, images in `JPEGImages/`, splits in `ImageSets/Main/`.

The devkit counts pixels from 1 and a box includes its last pixel: (1, 1, 1, 1) is the first pixel. Annotation programs
such as labelImg write edges from 0. A folder in which some coordinate is 0 is of the second kind; this is decided once
for all files.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitrail.data.boxes.dataset import BoxRecord, BoxSet, BoxSplits, unique_classes
from vitrail.data.image_io import EXTENSIONS
from vitrail.errors import DataError

LARGEST = 16 * 2**20
"""Most bytes of an annotation file."""

EDGES = ("xmin", "ymin", "xmax", "ymax")


class Annotation(NamedTuple):
    """Contents of one XML file; boxes as written."""

    filename: str
    size: tuple[int, int] | None
    names: list[str]
    boxes: np.ndarray
    difficult: list[bool]


def find_voc(root: Path) -> Path | None:
    """Return the folder with `Annotations` and `JPEGImages` at a path or one level below it, or None.

    Example:
        >>> find_voc(Path("no/such/folder")) is None
        True
    """
    if not root.is_dir():
        return None
    inside = sorted(each for each in root.iterdir() if each.is_dir())
    found = [each for each in (root, *inside) if (each / "Annotations").is_dir() and (each / "JPEGImages").is_dir()]
    return found[0] if found else None


def read_voc(root: Path, name: str) -> BoxSplits:
    """Read a VOC folder: the splits of `ImageSets/Main`, or one split `train` of all files.

    Raises:
        DataError: a file is no VOC annotation, or a listed image has none.
    """
    files = {path.stem: path for path in sorted((root / "Annotations").glob("*.xml"))}
    images: dict[str, list[Path]] = {}
    for path in sorted((root / "JPEGImages").iterdir()):
        if path.suffix.lower() in EXTENSIONS:
            images.setdefault(path.stem, []).append(path)
    splits = {}
    for split in ("train", "val", "test"):
        listed = root / "ImageSets" / "Main" / f"{split}.txt"
        if listed.is_file():
            splits[split] = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    splits = splits or {"train": list(files)}
    stems = [stem for each in splits.values() for stem in each]
    if missing := [stem for stem in stems if stem not in files or stem not in images]:
        raise DataError(f"{name}: no image or no annotation for {len(missing)} listed names, first {missing[0]}.")
    read = {stem: read_annotation(files[stem]) for stem in dict.fromkeys(stems)}
    classes = unique_classes(sorted({each for one in read.values() for each in one.names}), name)
    from_one = all((one.boxes[:, :2] >= 1).all() for one in read.values())
    chosen = {stem: _image(images[stem], one, files[stem]) for stem, one in read.items()}
    parts = {
        split: BoxSet(f"{name} {split}", classes, [_record(chosen[s], read[s], classes, from_one) for s in each])
        for split, each in splits.items()
    }
    return BoxSplits(name, classes, parts)


def read_annotation(path: Path) -> Annotation:
    """Read an annotation file.

    Raises:
        DataError: it is no VOC annotation.
    """
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} is larger than {LARGEST // 2**20} MiB; it is no annotation.")
    text = path.read_text(errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path} defines entities, which annotations do not need; it is not read.")
    try:
        tree = ET.fromstring(text)
        size = tree.find("size")
        stated = None if size is None else (int(_text(size, "width")), int(_text(size, "height")))
        objects = tree.findall("object")
        boxes = [[float(_text(each, f"bndbox/{edge}")) for edge in EDGES] for each in objects]
        hard = [each.findtext("difficult", "0").strip() == "1" for each in objects]
        names = [_text(each, "name") for each in objects]
    except (ET.ParseError, ValueError, DataError) as error:
        raise DataError(f"{path} is no VOC annotation: {error}") from error
    size_or_none = stated if stated and min(stated) > 0 else None
    return Annotation(tree.findtext("filename", ""), size_or_none, names, np.array(boxes).reshape(-1, 4), hard)


def _text(node: ET.Element, name: str) -> str:
    found = node.findtext(name)
    if found is None or not found.strip():
        raise DataError(f"<{name}> is missing")
    return found.strip()


def _image(paths: list[Path], one: Annotation, source: Path) -> Path:
    """Return the image of an annotation; of several with one stem, that of its <filename>."""
    named = [path for path in paths if len(paths) == 1 or path.name == Path(one.filename.strip()).name]
    if not named:
        names = " and ".join(path.name for path in paths)
        raise DataError(f"{source} belongs to {names}: its <filename> is '{one.filename}'. Keep or name one of them.")
    return named[0]


def _record(image: Path, one: Annotation, classes: Sequence[str], from_one: bool) -> BoxRecord:
    boxes = one.boxes - np.array([1.0, 1.0, 0.0, 0.0]) if from_one else one.boxes
    labels = np.array([classes.index(name) for name in one.names], dtype=np.int64)
    return BoxRecord(image, image.name, one.size, boxes, labels, np.array(one.difficult, dtype=bool))


def write_voc(boxes: BoxSet, folder: Path) -> None:
    """Write `Annotations/` and the split's list in a VOC folder; images are not copied. Boxes count from 1."""
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True, exist_ok=True)
    for record in boxes.records:
        tree = ET.Element("annotation")
        ET.SubElement(tree, "filename").text = record.path.name
        if record.size is not None:
            size = ET.SubElement(tree, "size")
            for key, value in zip(("width", "height", "depth"), (*record.size, 3), strict=True):
                ET.SubElement(size, key).text = str(value)
        for box, label, ignore in zip(record.boxes, record.labels, record.ignore, strict=True):
            item = ET.SubElement(tree, "object")
            ET.SubElement(item, "name").text = boxes.classes[label]
            ET.SubElement(item, "difficult").text = str(int(ignore))
            edges = ET.SubElement(item, "bndbox")
            for key, value in zip(EDGES, box + np.array([1.0, 1.0, 0.0, 0.0]), strict=True):
                ET.SubElement(edges, key).text = f"{value:.0f}" if value == round(value) else repr(float(value))
        ET.indent(tree)
        ET.ElementTree(tree).write(folder / "Annotations" / f"{record.path.stem}.xml", encoding="utf-8")
    stems = "".join(f"{record.path.stem}\n" for record in boxes.records)
    (main / f"{boxes.name.rpartition(' ')[2]}.txt").write_text(stems)
