"""Crops and difference maps of an evaluation, for its report."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitrail.data.matlab_resize import resize_axis
from vitrail.tasks.data_url import encode

LOUPE = 40
"""Side of a crop under the loupe, in pixels of the result."""
SHOWN = 160
"""Side that a crop is enlarged to."""
WIDEST = 480
"""Longest side of a whole image in the report."""
GAIN = 8
"""Factor of the differences in a difference map."""


@dataclass(frozen=True)
class Crop:
    """A place of an image under the loupe.

    Args:
        title: such as `largest error`.
        x: first column in the true image.
        y: first row.
        before: the degraded image there, as a `data:` URL.
        after: the restored image.
        truth: the true image.
    """

    title: str
    x: int
    y: int
    before: str
    after: str
    truth: str


@dataclass(frozen=True)
class RestoredExample:
    """An image of an evaluation with its crops.

    Args:
        id: name of the image.
        before: the degraded image, as a `data:` URL.
        after: the restored image.
        difference: absolute error, brightened.
        crops: places of the largest and the least error.
    """

    id: str
    before: str
    after: str
    difference: str
    crops: tuple[Crop, ...]


def make_example(name: str, low: np.ndarray, output: np.ndarray, truth: np.ndarray) -> RestoredExample:
    """Collect the images of one evaluated image; all are `(Y, X, C)` in 0..255."""
    before = bicubic_to(low, output.shape[:2])
    error = np.abs(np.clip(output, 0, 255) - truth).mean(2)
    crops = tuple(_crop(title, *place, before, output, truth) for title, place in _places(error, truth))
    planes = (_whole(before), _whole(output), _whole(np.repeat(error[..., None] * GAIN, 3, axis=2)))
    first, second, third = map(encode, planes)
    return RestoredExample(name, first, second, third, crops)


def bicubic_to(low: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image enlarged bicubically to a size.

    Example:
        >>> bicubic_to(np.zeros((4, 6, 3), np.uint8), (12, 8)).shape
        (12, 8, 3)
    """
    image = low.astype(np.float32)
    for axis, length in enumerate(size):
        if image.shape[axis] != length:
            image = resize_axis(image, axis, length, length / image.shape[axis])
    return image


def _places(error: np.ndarray, truth: np.ndarray) -> list[tuple[str, tuple[int, int]]]:
    """Return the cells of the largest and the least mean error; the latter among cells with detail."""
    side = LOUPE
    rows, columns = error.shape[0] // side, error.shape[1] // side
    if not rows or not columns:
        return []

    def cells(values: np.ndarray) -> np.ndarray:
        part = values[: rows * side, : columns * side]
        return part.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, -1)

    errors, detail = cells(error).mean(1), cells(truth.mean(2)).std(1)
    rough = detail >= np.median(detail)
    worst = int(errors.argmax())
    best = int(np.where(rough, errors / (detail + 1.0), np.inf).argmin())
    found = {"largest error": worst, "best rendered detail": best}
    return [(title, (cell % columns * side, cell // columns * side)) for title, cell in found.items()]


def _crop(title: str, x: int, y: int, *images: np.ndarray) -> Crop:
    cut = [
        _image(each[y : y + LOUPE, x : x + LOUPE]).resize((SHOWN, SHOWN), Image.Resampling.NEAREST) for each in images
    ]
    return Crop(title, x, y, *(encode(each) for each in cut))


def _whole(pixels: np.ndarray) -> Image.Image:
    image = _image(pixels)
    image.thumbnail((WIDEST, WIDEST))
    return image


def _image(pixels: np.ndarray) -> Image.Image:
    values = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
