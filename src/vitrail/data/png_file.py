"""PNG writer of 8 and 16 bits, grey or colour, with alpha, colour profile, EXIF, resolution and text.

Pillow writes no 16-bit colour. Rows are filtered by `Up` (PNG specification, section 9), which costs one subtraction.
"""

import struct
import zlib

import numpy as np

from vitrail.data.stored_image import StoredImage

_COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}
_ROWS = 256


def png_bytes(image: StoredImage, metadata: bool = True) -> bytes:
    """Return a PNG file.

    Args:
        image: pixels and their properties.
        metadata: whether EXIF, resolution and text are written; the colour profile always is.

    Example:
        >>> import numpy as np
        >>> from vitrail.data.image_io import open_image
        >>> open_image(png_bytes(StoredImage(np.full((1, 2, 3), 200, "uint8")))).getpixel((0, 0))
        (200, 200, 200)
    """
    pixels = image.pixels if image.alpha is None else np.concatenate([image.pixels, image.alpha[..., None]], axis=2)
    height, width, channels = pixels.shape
    depth = pixels.dtype.itemsize * 8
    header = struct.pack(">IIBBBBB", width, height, depth, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header)]
    if image.profile:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(image.profile)))
    if metadata:
        chunks += _metadata(image)
    return b"".join([*chunks, _chunk(b"IDAT", _packed(pixels)), _chunk(b"IEND", b"")])


def _metadata(image: StoredImage) -> list[bytes]:
    chunks = []
    if image.dpi:
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *(round(each / 0.0254) for each in image.dpi), 1)))
    if image.exif:
        chunks.append(_chunk(b"eXIf", image.exif.removeprefix(b"Exif\0\0")))
    for key, value in image.text.items():
        name = key.encode("latin-1", "replace")[:79]
        chunks.append(_chunk(b"iTXt", name + b"\0\0\0\0\0" + value.encode()))
    return chunks


def _packed(pixels: np.ndarray) -> bytes:
    """Compress filtered rows, some at a time."""
    squeeze, parts = zlib.compressobj(6), []
    above = np.zeros((1, pixels.shape[1] * pixels.shape[2] * pixels.dtype.itemsize), np.uint8)
    for first in range(0, len(pixels), _ROWS):
        part = pixels[first : first + _ROWS]
        values = part.astype(part.dtype.newbyteorder(">")).reshape(len(part), -1).view(np.uint8)
        filtered = values - np.concatenate([above, values[:-1]])  # Up: difference from the row above, modulo 256
        kind = np.full((len(part), 1), 2, np.uint8)
        parts.append(squeeze.compress(np.concatenate([kind, filtered], axis=1).tobytes()))
        above = values[-1:]
    return b"".join([*parts, squeeze.flush()])


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
