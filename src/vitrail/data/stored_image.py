"""Images as files store them: 8 or 16 bits, grey or colour, alpha, colour profile and metadata.

`open_image` returns the input of a classifier, 8-bit RGB or grey; here nothing is thrown away. Pillow decodes 16-bit
colour to its high bytes only, so such a file is decoded twice, the second time with the byte order exchanged, which
gives the low bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail.data.image_io import MAX_PIXELS, ImageDecodeError, exif_block, load_stored

_SWAPPED = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B"}


@dataclass(frozen=True)
class StoredImage:
    """An image with everything its file holds.

    Args:
        pixels: `(Y, X, C)` of uint8 or uint16, one or three channels.
        alpha: `(Y, X)` of the same type, or None.
        profile: ICC colour profile, or None.
        exif: EXIF block, or None.
        dpi: resolution, or None.
        text: text entries.
        notes: properties that could not be kept.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def top(self) -> int:
        """The largest value: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


def read_stored(path: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> StoredImage:
    """Read an image with everything its file holds; pixels stay in the stored orientation.

    Args:
        path: a path, or the bytes of a file.
        max_pixels: most pixels that an image may have.

    Raises:
        ImageDecodeError: the image cannot be decoded.
    """
    deep, notes = False, list[str]()

    def look(image: Any) -> None:
        nonlocal deep
        raw = str([tile.args for tile in image.tile])
        deep = image.mode in ("RGB", "RGBA") and ";16" in raw and "LA;16" not in raw
        if "LA;16" in raw:
            notes.append("16-bit grey with alpha is read as 8 bits")

    image = load_stored(path, look, max_pixels)
    if deep:
        low = np.asarray(load_stored(path, _swap_bytes, max_pixels), np.uint16)
        values = np.asarray(image).astype(np.uint16) * 256 + low
        planes = values[..., :3], values[..., 3] if values.shape[2] == 4 else None
    else:
        planes = _planes(image, "the image" if isinstance(path, bytes) else str(path), notes)
    info = image.info
    profile = None if image.mode in ("CMYK", "LAB", "YCbCr") else info.get("icc_profile")
    if info.get("icc_profile") and profile is None:
        notes.append(f"the profile of {image.mode} does not fit RGB and is left out")
    text = {str(key): value for key, value in getattr(image, "text", {}).items() if isinstance(value, str)}
    dpi: Any = info.get("dpi")
    pixels, alpha = planes
    return StoredImage(
        np.ascontiguousarray(pixels),
        alpha,
        profile,
        exif_block(image),
        (float(dpi[0]), float(dpi[1])) if dpi else None,
        text,
        tuple(notes),
    )


def _swap_bytes(image: Any) -> None:
    """Exchange the byte order that Pillow decodes 16-bit colour with."""
    image.tile = [tile._replace(args=_swapped(tile.args)) for tile in image.tile]


def _swapped(args: Any) -> Any:
    if isinstance(args, tuple):
        return tuple(_swapped(each) for each in args)
    if isinstance(args, str) and args[-4:] in _SWAPPED:
        return args[:-4] + _SWAPPED[args[-4:]]
    return args


def _planes(image: Image.Image, name: str, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return colour or grey and alpha of an image of Pillow."""
    mode = image.mode
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageDecodeError(name, "32-bit values outside 0..65535 cannot be restored", "format")
        return values.astype(np.uint16)[..., None], None
    if mode == "F":
        raise ImageDecodeError(name, "values are 32-bit floats, whose range is unknown; save it as 16 bits", "format")
    if "transparency" in image.info or mode in ("PA", "La", "RGBa"):
        image, mode = image.convert("LA" if mode in ("L", "La", "1") else "RGBA"), "RGBA"
        mode = image.mode
    if mode == "1":
        image = image.convert("L")
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        notes.append(f"{mode} is converted to RGB") if mode != "P" else None
        image = image.convert("RGB")
    values = np.asarray(image)
    if image.mode == "L":
        return values[..., None], None
    if image.mode in ("LA", "RGBA"):
        return values[..., :-1], np.ascontiguousarray(values[..., -1])
    return values, None
