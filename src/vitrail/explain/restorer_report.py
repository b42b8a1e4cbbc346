"""Sections of `vitrail explain` for image restorers: receptive field and local attribution of one output pixel."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.explain.html_page import Section
from vitrail.explain.local_attribution import attribute
from vitrail.explain.overlay import normalised, paint
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.parts.restorer_reach import reach
from vitrail.tasks.inference import device_of, evaluating

LARGEST = 192
"""Side of the part of the image that is looked at, in input pixels: gradients of all layers are in memory."""


def restorer_album(
    model: Model, images: Iterable[tuple[str, Image.Image]], pixel: tuple[int, int] | None = None
) -> Iterator[Section]:
    """Yield a section for each image: the input pixels that the output pixel depends on.

    Args:
        model: an image restorer.
        images: names and PIL images.
        pixel: row and column in the restored image; by default its middle.

    Raises:
        VitrailError: the pixel is outside the restored image.
    """
    check_layers(model, "gradients through its layers are needed")
    for name, image in images:
        row, column = pixel or tuple(side * model.scale // 2 for side in (image.height, image.width))
        if not (0 <= row < image.height * model.scale and 0 <= column < image.width * model.scale):
            size = f"{image.height * model.scale} rows and {image.width * model.scale} columns"
            raise VitrailError(f"--pixel {row},{column} lies outside the restored image of {size}.")
        top = _start(row // model.scale, image.height, model.multiple)
        left = _start(column // model.scale, image.width, model.multiple)
        part = image.crop((left, top, min(left + LARGEST, image.width), min(top + LARGEST, image.height)))
        batch = _to_tensor(part, model.config.in_channels).to(device_of(model))
        with evaluating(model):
            found = attribute(model, batch, row - top * model.scale, column - left * model.scale)
        seen = int((found.field > 0).sum())
        text = (
            f"Output pixel {row},{column} depends on {seen:,} input pixels, up to {found.reach} away (the formula"
            f" allows {reach(model)}); diffusion index {found.diffusion:.1f}."
        )
        place = (row - top * model.scale) / model.scale, (column - left * model.scale) / model.scale
        yield Section(name, text, _figures(part, found.field, found.attribution, place))


def _start(place: int, side: int, grid: int) -> int:
    """Return the first row or column of the part around a place, on the window grid."""
    first = min(max(place - LARGEST // 2, 0), max(side - LARGEST, 0))
    return first // grid * grid


def _to_tensor(image: Image.Image, channels: int) -> Tensor:
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"), np.float32)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)[None] / 255


def _figures(
    part: Image.Image, field: Tensor, attribution: Tensor, place: tuple[float, float]
) -> dict[str, Image.Image]:
    """Draw the image with the pixel, the logarithm of the receptive field, and the attribution."""
    factor = max(1, 384 // max(part.size))
    size = part.width * factor, part.height * factor
    marked = part.convert("RGB").resize(size, Image.Resampling.NEAREST)
    y, x = (value * factor for value in place)
    ImageDraw.Draw(marked).rectangle((x - 4, y - 4, x + 4, y + 4), outline="red", width=2)
    peak = field.max().clamp(min=1e-30)
    decades = ((field / peak).clamp(min=1e-6).log10() + 6) / 6
    maps = {"receptive field": decades, "local attribution": normalised(attribution**0.5)}
    figures = {name: paint(values).resize(size, Image.Resampling.NEAREST) for name, values in maps.items()}
    return {"pixel": marked, **figures}
