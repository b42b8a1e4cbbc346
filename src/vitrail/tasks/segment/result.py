"""Result type of segmentation: one class for each pixel of an image."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vitrail.atomic_io import write_file
from vitrail.data.image_io import open_image
from vitrail.data.mask_io import mask_image, palette
from vitrail.errors import DataError
from vitrail.tasks.data_url import to_jpeg, to_png
from vitrail.tasks.results import file_stem


@dataclass(frozen=True)
class Segmentation:
    """One class for each pixel of an image; or the reason why there is none.

    Args:
        path: file of the image, or its given name.
        mask: number of the class of each pixel, `(Y, X)`, as in the mask files of the training data.
        labels: class names.
        ids: number of each class.
        error: reason why the image could not be read; the other fields are then empty.
        image: the image itself, if it came from memory.

    Example:
        >>> found = Segmentation("a.jpg", np.array([[0, 0, 1]]), ("sky", "road"), (0, 1))
        >>> found.shares()
        {'sky': 0.6666666666666666, 'road': 0.3333333333333333}
    """

    path: str
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8), repr=False, compare=False)
    labels: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    error: str | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    def shares(self) -> dict[str, float]:
        """Return the share of the pixels of each class that occurs, largest first.

        Raises:
            DataError: the image could not be read.
        """
        if self.error is not None:
            raise DataError(f"{self.path}: {self.error}")
        names = dict(zip(self.ids, self.labels, strict=True))
        numbers, counts = np.unique(self.mask, return_counts=True)
        found = {names[int(n)]: int(c) / self.mask.size for n, c in zip(numbers, counts, strict=True)}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def cells(self) -> tuple[str, ...]:
        """Return height, width, and the classes with their shares, for CSV."""
        found = " ".join(f"{name}={share:.4f}" for name, share in self.shares().items())
        return str(self.mask.shape[0]), str(self.mask.shape[1]), found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; the mask as run lengths, row by row: `[number, length]` pairs."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        numbers = {name: n for n, name in zip(self.ids, self.labels, strict=True)}
        found = [
            {"label": name, "id": numbers[name], "share": round(share, 6)} for name, share in self.shares().items()
        ]
        height, width = self.mask.shape
        return {"path": self.path, "height": height, "width": width, "classes": found, "runs": run_lengths(self.mask)}

    def draw(self, opacity: float = 0.55, legend: bool = True) -> Image.Image:
        """Return the image under the colours of its classes, with a legend of those that occur."""
        if self.error is not None:
            raise DataError(f"{self.path}: {self.error}")
        image = open_image(self.path) if self.image is None else self.image.convert("RGB")
        drawn = overlay(image, self.mask, opacity)
        return with_legend(drawn, self._legend()) if legend else drawn

    def save(self, folder: Path) -> list[Path]:
        """Write the mask as a PNG of class numbers with a palette, and the overlay; return both files.

        Raises:
            ResourceError: the disk is full; no part of a file is left.
        """
        if self.error is not None:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        stem = file_stem(self.path)
        mask, drawn = folder / f"{stem}_mask.png", folder / f"{stem}_overlay.jpg"
        write_file(mask, to_png(mask_image(self.mask)))
        write_file(drawn, to_jpeg(self.draw(), quality=90))
        return [mask, drawn]

    def images(self) -> dict[str, bytes]:
        """Return the mask as PNG of class numbers with a palette."""
        return {} if self.error is not None else {"mask": to_png(mask_image(self.mask))}

    def _legend(self) -> list[tuple[str, tuple[int, ...]]]:
        colours = palette()
        numbers = dict(zip(self.labels, self.ids, strict=True))
        return [(name, tuple(colours[numbers[name] % 256].tolist())) for name in self.shares()]

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        return f"{self.path}: " + ", ".join(f"{name} {share:.1%}" for name, share in list(self.shares().items())[:6])


def run_lengths(mask: np.ndarray) -> list[list[int]]:
    """Return `[number, length]` of each run of equal numbers, row by row from the top.

    Example:
        >>> run_lengths(np.array([[0, 0], [0, 1]]))
        [[0, 3], [1, 1]]
    """
    flat = mask.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[flat.size > 0], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, flat.size))
    return [[int(n), int(length)] for n, length in zip(flat[starts], lengths, strict=True)]


def overlay(image: Image.Image, mask: np.ndarray, opacity: float = 0.55, ignore: int | None = None) -> Image.Image:
    """Return an image under the palette colours of a mask of its size; pixels of `ignore` stay as they are.

    Example:
        >>> overlay(Image.new("RGB", (1, 1)), np.array([[1]]), opacity=1.0).getpixel((0, 0))
        (128, 0, 0)
    """
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    colours = palette()[mask.astype(np.int64) % 256].astype(np.float32)
    mixed = (1 - opacity) * pixels + opacity * colours
    if ignore is not None:
        mixed = np.where((mask == ignore)[..., None], pixels, mixed)
    return Image.fromarray(mixed.round().astype(np.uint8))


def with_legend(image: Image.Image, entries: list[tuple[str, tuple[int, ...]]], height: int = 16) -> Image.Image:
    """Return an image above a legend of names and colours, in as many rows as its width needs."""
    font = ImageFont.load_default(size=12)
    places, x, row = [], 4, 0
    for name, colour in entries:
        wide = 20 + round(font.getlength(name)) + 10
        if x + wide > image.width and x > 4:
            x, row = 4, row + 1
        places.append((x, row, name, colour))
        x += wide
    page = Image.new("RGB", (image.width, image.height + height * (row + 1)), "white")
    page.paste(image, (0, 0))
    pen = ImageDraw.Draw(page)
    for x, row, name, colour in places:
        top = image.height + height * row
        pen.rectangle((x, top + 3, x + 12, top + 13), fill=colour, outline="black")
        pen.text((x + 17, top + 1), name, fill="black", font=font)
    return page
