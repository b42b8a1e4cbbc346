"""Images of any number of bands: NumPy files, TIFFs that Pillow does not read, and bands that Pillow has.

| stored | rule |
|---|---|
| 8-bit | kept |
| 16-bit unsigned | `v / 257`, so that 65535 becomes 255 |
| floats | 0..1 is scaled by 255; else 0..255 is kept; else refused: a stretch of each image would differ |
| 3 axes of a `.npy` | `(Y, X, C)`, or `(C, Y, X)` if the first axis is shorter than the last |

TIFFs are read if their strips are uncompressed or deflated, without a predictor.
"""

import re
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from vitrail.data import tiff

MOST = 512
"""Bands of an image at most: a file with more is no image, or has its axes in another order."""

STRIPS, STRIP_BYTES, WIDTH, HEIGHT, PREDICTOR, TILE_WIDTH = 273, 279, 256, 257, 317, 322
_MODE = re.compile(r"(\d+) bands")


def band_mode(channels: int) -> str:
    """Return the mode of images of a model: Pillow's for one and three channels.

    Example:
        >>> band_mode(1), band_mode(3), band_mode(13)
        ('L', 'RGB', '13 bands')
    """
    return {1: "L", 3: "RGB"}.get(channels, f"{channels} bands")


def bands_of(mode: str) -> int | None:
    """Return the number of bands of a mode, or None for a mode of Pillow.

    Example:
        >>> bands_of("13 bands"), bands_of("RGB")
        (13, None)
    """
    found = _MODE.fullmatch(mode)
    return int(found[1]) if found else None


class BandImage:
    """An image of any number of bands, with the methods of a PIL image that transforms use.

    Args:
        planes: `(C, Y, X)` of uint8.

    Example:
        >>> image = BandImage(np.zeros((5, 20, 30), np.uint8))
        >>> image.mode, image.size, image.resize((6, 4), Image.Resampling.BICUBIC).size
        ('5 bands', (30, 20), (6, 4))
    """

    def __init__(self, planes: np.ndarray) -> None:
        self.planes = planes
        self.mode = f"{len(planes)} bands"
        self.height, self.width = planes.shape[1:]
        self.size = (self.width, self.height)

    def _each(self, change: Callable[[Image.Image], Image.Image]) -> "BandImage":
        return BandImage(np.stack([np.asarray(change(Image.fromarray(plane))) for plane in self.planes]))

    def crop(self, box: tuple[int, int, int, int]) -> "BandImage":
        """Return a part; beyond the edge there is black."""
        return self._each(lambda plane: plane.crop(box))

    def resize(self, size: tuple[int, int], filter: Image.Resampling) -> "BandImage":
        """Return the image of another size, band by band."""
        return self._each(lambda plane: plane.resize(size, filter))

    def convert(self, mode: str) -> "BandImage | Image.Image":
        """Return grey (the mean of the bands) or colour (the first three, or grey) of it, for viewing."""
        if mode == self.mode:
            return self
        if mode == "RGB" and len(self.planes) >= 3:
            return Image.fromarray(np.ascontiguousarray(self.planes[:3].transpose(1, 2, 0)))
        return Image.fromarray(self.planes.mean(0).round().astype(np.uint8)).convert(mode)

    def tobytes(self) -> bytes:
        """Return the values, band by band."""
        return self.planes.tobytes()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """Return `(Y, X, C)`."""
        return np.ascontiguousarray(self.planes.transpose(1, 2, 0)).astype(dtype or np.uint8)


def read_bands(content: bytes, max_pixels: int) -> np.ndarray | None:
    """Read the bands of a `.npy` file or of a TIFF that Pillow does not read; None for other files.

    Args:
        content: the file.
        max_pixels: most pixels that an image may have.

    Returns:
        `(C, Y, X)` of uint8.

    Raises:
        ValueError: the file holds no image that is read; the message is the reason.

    Example:
        >>> read_bands(b"no bands", 100) is None
        True
    """
    if content[:6] == b"\x93NUMPY":
        values = _load(content)
    elif (tags := tiff.read_tags(content, most=1 << 20)) is not None:
        values = _tiff_bands(content, tags)
    else:
        return None
    if values is None:
        return None
    if values.shape[1] * values.shape[2] > max_pixels or not 1 <= len(values) <= MOST or not values.size:
        raise ValueError(f"an array of {' x '.join(map(str, values.shape))} is no image of 1 to {MOST} bands")
    return to_bytes(values)


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Bring values to 8 bits by the table of this file.

    Raises:
        ValueError: there is no rule for them.

    Example:
        >>> to_bytes(np.array([[[0, 257, 65535]]], np.uint16)).tolist(), to_bytes(np.array([[[0.0, 1.0]]])).tolist()
        ([[[0, 1, 255]]], [[[0, 255]]])
    """
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind == "f" and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255:
        return np.rint(values.astype(np.float64) * (255.0 if values.max() <= 1 else 1.0)).astype(np.uint8)
    low, high = (values.min(), values.max()) if values.dtype.kind in "iuf" else ("?", "?")
    raise ValueError(
        f"bands of type {values.dtype} with values {low} to {high}; uint8, uint16, or floats in 0..1 or 0..255 are read"
    )


def _load(content: bytes) -> np.ndarray:
    values = np.load(BytesIO(content), allow_pickle=False)
    if values.ndim == 2:
        return values[None]
    if values.ndim != 3:
        raise ValueError(f"an array of {values.ndim} axes is no image; (Y, X, C) or (C, Y, X) is")
    return values if values.shape[0] < values.shape[2] else values.transpose(2, 0, 1)


def _tiff_bands(content: bytes, tags: dict[int, list[int]]) -> np.ndarray | None:
    """Return the bands of a TIFF of other than 1, 3 or 4 channels; None if Pillow reads it."""
    channels = tags.get(tiff.CHANNELS, [1])[0]
    if channels in (1, 3):
        return None
    bits, kind = set(tags.get(tiff.BITS, [1])), tags.get(tiff.SAMPLE_FORMAT, [1])[0]
    packing = tags.get(tiff.COMPRESSION, [1])[0]
    letter = {(8, 1): "u1", (16, 1): "u2", (32, 3): "f4"}.get((min(bits), kind))
    plain = packing in (1, 8, 32946) and tags.get(PREDICTOR, [1])[0] == 1 and TILE_WIDTH not in tags
    if len(bits) != 1 or letter is None or not plain:
        return None  # Pillow may read it, or says why not
    parts = [content[at : at + size] for at, size in zip(tags[STRIPS], tags[STRIP_BYTES], strict=True)]
    raw = b"".join(parts if packing == 1 else map(zlib.decompress, parts))
    order = "<" if content[:2] == b"II" else ">"
    values = np.frombuffer(raw, np.dtype(order + letter))
    height, width = tags[HEIGHT][0], tags[WIDTH][0]
    if len(values) < channels * height * width:
        raise ValueError("the file ends too early")
    values = values[: channels * height * width].astype(letter)
    if tags.get(tiff.PLANES, [1])[0] == tiff.SEPARATE:
        return values.reshape(channels, height, width)
    return values.reshape(height, width, channels).transpose(2, 0, 1)
