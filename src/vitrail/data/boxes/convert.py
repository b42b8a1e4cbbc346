"""Write a data set of images with boxes in another layout, and compare the result with the source."""

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitrail.atomic_io import replace_folder
from vitrail.data.boxes.coco import write_coco
from vitrail.data.boxes.dataset import BoxRecord, BoxSet, BoxSplits, Orientation
from vitrail.data.boxes.open import open_boxes
from vitrail.data.boxes.voc import write_voc
from vitrail.data.boxes.yolo import write_yolo
from vitrail.errors import DataError, VitrailError, unknown

LAYOUTS = ("coco", "voc", "yolo")
TOLERANCE = 1e-6
"""Largest difference of a coordinate after the round trip, in pixels."""


class ConvertedBoxes(NamedTuple):
    """A data set that was written.

    Args:
        folder: where it is.
        images: images of each split.
        boxes: boxes of each split.
        error: largest difference of a coordinate between source and result, in pixels.
        losses: sentences about properties that the layout cannot hold.
    """

    folder: Path
    images: dict[str, int]
    boxes: dict[str, int]
    error: float
    losses: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the conversion as lines of text."""
        found = [f"{name}: {count:,} images, {self.boxes[name]:,} boxes" for name, count in self.images.items()]
        return [*found, f"largest difference after reading it back: {self.error:.1e} pixels", *self.losses]


def convert_boxes(spec: str, to: str, out: Path, copy: bool = False) -> ConvertedBoxes:
    """Write a data set in the layout of COCO, PASCAL VOC or YOLO, images included, and read it back.

    Images are hard links where the file system can make them, else copies. Nothing is left at `out` if a step fails.

    Args:
        spec: data set, as `open_boxes` takes it.
        to: `coco`, `voc` or `yolo`.
        out: new folder.
        copy: copy images rather than link them.

    Raises:
        VitrailError: the layout is unknown, or `out` exists.
        DataError: the data is faulty, two images would have one file, or the result differs from the data.
    """
    if to not in LAYOUTS:
        raise unknown("layout", to, LAYOUTS)
    if out.exists():
        raise VitrailError(f"{out} exists. Name a new folder with --out, or remove it.")
    splits = _with_sizes(open_boxes(spec, 0.0))
    names = _file_names(splits, by_stem=to != "coco")
    losses = _losses(splits, to)
    with replace_folder(out) as folder:
        for split, part in splits:
            renamed = [replace(record, path=Path(names[record.path]), id=names[record.path]) for record in part.records]
            _write(BoxSet(f"{splits.name} {split}", part.classes, renamed), split, to, folder)
            for record in part.records:
                _place(record.path, folder / _image_folder(to, split) / names[record.path], copy)
        error = _difference(splits, open_boxes(str(folder), 0.0), names, to)
    counts = {split: len(part) for split, part in splits}
    boxes = {split: sum(_kept(record, to).sum() for record in part.records) for split, part in splits}
    return ConvertedBoxes(out, counts, {split: int(count) for split, count in boxes.items()}, error, losses)


def _with_sizes(splits: BoxSplits) -> BoxSplits:
    """Fill in the sizes that annotations do not state; refuse those that do not fit their image."""
    parts = {}
    for split, part in splits:
        records = []
        for record in part.records:
            orientation = Orientation.of(record.path)
            if problem := orientation.problem(record.size):
                raise DataError(f"{record.id}: {problem}. `vitrail data check --task detect` lists all.")
            records.append(replace(record, size=orientation.upright))
        parts[split] = BoxSet(part.name, part.classes, records)
    return BoxSplits(splits.name, splits.classes, parts)


def _file_names(splits: BoxSplits, by_stem: bool) -> dict[Path, str]:
    paths = list(dict.fromkeys(record.path for _, part in splits for record in part.records))
    keys = Counter(path.stem if by_stem else path.name for path in paths)
    if twice := [key for key, count in keys.items() if count > 1]:
        raise DataError(
            f"{len(twice)} names belong to several images, first '{twice[0]}'; all are put into one folder.\n"
            "Rename them first."
        )
    return {path: path.name for path in paths}


def _kept(record: BoxRecord, to: str) -> np.ndarray:
    return ~record.ignore if to == "yolo" else np.ones(len(record.boxes), dtype=bool)


def _losses(splits: BoxSplits, to: str) -> tuple[str, ...]:
    records = [record for _, part in splits for record in part.records]
    ignored = sum(int(record.ignore.sum()) for record in records)
    outlines = sum(bool(record.outlines) for record in records)
    areas = sum(not np.allclose(record.areas, replace(record, stated_areas=None).areas) for record in records)
    found = {int(label) for record in records for label in record.labels}
    empty = [name for place, name in enumerate(splits.classes) if place not in found]
    losses = []
    if to == "yolo" and ignored:
        losses.append(f"left out: {ignored} objects to be ignored (crowds, difficult), for which YOLO has no mark")
    if to != "coco" and outlines:
        losses.append(f"left out: outlines of objects in {outlines} images; --to coco keeps them")
    if to != "coco" and areas:
        losses.append(f"left out: areas of objects in {areas} images, by which AP has sizes; --to coco keeps them")
    if to == "voc" and empty:
        losses.append(f"left out: classes without an object, which VOC does not list: {', '.join(empty[:5])}")
    return tuple(losses)


def _image_folder(to: str, split: str) -> str:
    return {"coco": "images", "voc": "JPEGImages", "yolo": f"images/{split}"}[to]


def _write(part: BoxSet, split: str, to: str, folder: Path) -> None:
    if to == "coco":
        write_coco(part, folder / "annotations" / f"{split}.json")
    elif to == "voc":
        write_voc(part, folder)
    else:
        write_yolo(part, folder)


def _place(source: Path, target: Path, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # an image of two splits
        return
    if not copy:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)


def _difference(before: BoxSplits, after: BoxSplits, names: dict[Path, str], to: str) -> float:
    """Compare two data sets box by box; return the largest difference in pixels."""
    largest = 0.0
    for split, part in before:
        found = {record.id: record for record in after.require(split).records}
        for record in part.records:
            kept, got = _kept(record, to), found.get(names[record.path])
            want = [before.classes[label] for label in record.labels[kept]]
            if got is None or [after.classes[label] for label in got.labels] != want:
                raise DataError(f"{record.id}: its objects are not the same after they were written as {to}.")
            if len(want):
                largest = max(largest, float(np.abs(got.boxes - record.boxes[kept]).max()))
            if largest > TOLERANCE:
                raise DataError(
                    f"{record.id}: a box differs by {largest:.3g} pixels after it was written as {to}.\n"
                    "`vitrail data check --task detect` lists boxes outside of images."
                )
    return largest
