"""Masks of class numbers: read without changing a number, written with a palette."""

from contextlib import nullcontext
from io import BytesIO
from os import PathLike

import numpy as np
from PIL import Image

from vitrail.data import tiff
from vitrail.data.image_io import MAX_PIXELS, ImageDecodeError, open_regular, printable

MODES = ("1", "L", "P", "I", "I;16", "I;16B")
"""Modes of Pillow that hold numbers: grey of any depth, and palettes, whose indices are the numbers."""


def open_mask(path: str | PathLike[str]) -> np.ndarray:
    """Read class numbers `(Y, X)` of uint8 or int32, exactly as stored.

    The index of a palette is the class number, not its colour. Colour images and JPEG files are refused: neither holds
    exact numbers.

    Raises:
        ImageDecodeError: it cannot be read, or holds no numbers.
    """
    name = printable(path)
    with open_regular(path, name) as file:
        data = file.read()
    try:
        with Image.open(BytesIO(data), formats=("PNG", "BMP", "TIFF", "GIF", "PPM")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageDecodeError(name, f"{image.width} x {image.height} pixels are over the limit", "size")
            if image.mode not in MODES:
                reason = f"this is a colour image ({image.mode}); a mask holds one class number for each pixel"
                raise ImageDecodeError(name, reason, "mask colour")
            if reason := tiff.fault(image):
                raise ImageDecodeError(name, reason, "format")
            with tiff.quiet(name) if image.format == "TIFF" else nullcontext():
                image.load()
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageDecodeError):
            raise
        raise ImageDecodeError(name, f"no mask that can be read (PNG is usual): {error}", "format") from error
    return values.astype(np.uint8) if values.dtype in (np.bool_, np.uint8) else values.astype(np.int32)


def palette(count: int = 256) -> np.ndarray:
    """Return `(count, 3)` colours of uint8 that neighbouring numbers tell apart: the palette of PASCAL VOC.

    Bits 0, 3, 6 of the number are the highest bits of red, bits 1, 4, 7 of green, bits 2, 5, 8 of blue.

    Example:
        >>> palette(4).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    number = np.arange(count)
    colours = np.zeros((count, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def mask_image(mask: np.ndarray) -> Image.Image:
    """Return class numbers as an image: with a palette up to 255, else 16-bit grey.

    Example:
        >>> mask_image(np.array([[0, 1]])).mode, mask_image(np.array([[0, 300]])).mode
        ('P', 'I;16')
    """
    if mask.max(initial=0) > 255:
        return Image.fromarray(mask.astype(np.uint16))
    image = Image.fromarray(mask.astype(np.uint8), mode=None).convert("P")
    image.putpalette(palette().tobytes())
    return image
