"""Detections of an image as a value, for people and for files."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vitrail.atomic_io import write_file
from vitrail.data.image_io import open_image
from vitrail.errors import DataError
from vitrail.tasks.data_url import to_jpeg, to_png
from vitrail.tasks.results import file_stem


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, best first; or the reason why the image could not be read.

    Args:
        path: file of the image, or its given name.
        labels: class name of each object.
        scores: probability of each object.
        boxes: left, top, right, bottom of each object, in pixels of the upright image.
        indices: class numbers.
        size: width and height of the image.
        masks: `(n, Y, X)` of bool, if the model has a mask head.
        error: reason why the image could not be read; the other fields are then empty.
        held: the image itself, if it came from memory and not from a file.

    Example:
        >>> print(Detections("a.jpg", ("cell",), (0.9,), ((1.0, 2.0, 30.0, 40.0),), (0,), (64, 48)))
        a.jpg: cell 90.0%
    """

    path: str
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    indices: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    masks: np.ndarray | None = field(default=None, repr=False, compare=False)
    error: str | None = None
    held: Image.Image | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    def cells(self) -> tuple[str, ...]:
        """Return the number of objects, and the objects as text, for CSV."""
        found = zip(self.labels, self.scores, self.boxes, strict=True)
        each = [f"{label} {score:.4f} {' '.join(f'{v:.1f}' for v in box)}" for label, score, box in found]
        return (str(len(self)), "; ".join(each))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        found = zip(self.labels, self.indices, self.scores, self.boxes, strict=True)
        objects = [
            {"label": label, "index": index, "score": round(score, 6), "box": [round(v, 3) for v in box]}
            for label, index, score, box in found
        ]
        return {"path": self.path, "width": self.size[0], "height": self.size[1], "objects": objects}

    def draw(self, threshold: float = 0.0) -> Image.Image:
        """Return the image with its boxes, masks and names.

        Args:
            threshold: least score of a drawn object.

        Raises:
            DataError: the image could not be read.
        """
        if self.error is not None:
            raise DataError(f"{self.path} has no objects: {self.error}")
        image = (open_image(self.path) if self.held is None else self.held).convert("RGB")
        shown = [i for i, score in enumerate(self.scores) if score >= threshold]
        captions = [f"{self.labels[i]} {self.scores[i]:.0%}" for i in shown]
        masks = None if self.masks is None else self.masks[shown]
        return draw_boxes(image, [self.boxes[i] for i in shown], captions, [self.indices[i] for i in shown], masks)

    def images(self) -> dict[str, bytes]:
        """Return the masks as one PNG whose pixels are object numbers from 1 (0: none), if there are masks."""
        return {} if self.masks is None else {"masks": to_png(self._numbers())}

    def _numbers(self) -> Image.Image:
        assert self.masks is not None
        numbers = np.zeros(self.size[::-1], dtype=np.uint16)
        for i in reversed(range(len(self.masks))):  # the best object is on top
            numbers[self.masks[i]] = i + 1
        return Image.fromarray(numbers)

    def save(self, folder: Path) -> list[Path]:
        """Write the drawing, and the masks as one PNG whose pixels are object numbers from 1 (0: none).

        Raises:
            ResourceError: the disk is full; no part of a file is left.
        """
        if self.error is not None:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        stem = file_stem(self.path)
        files = [folder / f"{stem}.jpg"]
        write_file(files[0], to_jpeg(self.draw(), quality=92))
        if self.masks is not None:
            files.append(folder / f"{stem}-masks.png")
            write_file(files[1], to_png(self._numbers()))
        return files

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        found = [f"{label} {score:.1%}" for label, score in zip(self.labels, self.scores, strict=True)]
        return f"{self.path}: " + (", ".join(found) or "nothing")


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class: hues at the golden ratio, so that neighbours differ.

    Example:
        >>> colour(0), colour(1)
        ((57, 147, 230), (197, 230, 57))
    """
    red, green, blue = colorsys.hsv_to_rgb((0.58 + 0.618034 * index) % 1.0, 0.75, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: Image.Image,
    boxes: Sequence[Sequence[float]] | np.ndarray,
    captions: list[str],
    indices: list[int],
    masks: np.ndarray | None = None,
) -> Image.Image:
    """Draw boxes with captions into a copy of an image, each class in its colour.

    Args:
        image: RGB image.
        boxes: left, top, right, bottom of each.
        captions: text of each; an empty one is not drawn.
        indices: class number of each.
        masks: `(n, Y, X)` of bool.

    Example:
        >>> draw_boxes(Image.new("RGB", (40, 30)), [[5, 5, 20, 20]], ["cat"], [0]).size
        (40, 30)
    """
    pixels = np.array(image)
    for mask, index in zip(masks if masks is not None else (), indices, strict=False):
        pixels[mask] = (0.55 * pixels[mask] + 0.45 * np.array(colour(index))).astype(np.uint8)
    sheet = Image.fromarray(pixels)
    pen, line = ImageDraw.Draw(sheet), max(1, round(max(image.size) / 400))
    font: Any = ImageFont.load_default(size=max(10, max(image.size) // 50))
    for box, text, index in zip(boxes, captions, indices, strict=True):
        left, top, right, bottom = map(float, box)
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour(index), width=line)
        if text:
            place = pen.textbbox((left + line, max(top - font.size - 2 * line, 0)), text, font=font)
            pen.rectangle((place[0] - line, place[1] - line, place[2] + line, place[3] + line), fill=colour(index))
            pen.text((left + line, max(top - font.size - 2 * line, 0)), text, fill="white", font=font)
    return sheet
