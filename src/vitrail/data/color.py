"""Colour conversion: every mode that Pillow decodes to, as 8-bit RGB or grey.

| stored | rule |
|---|---|
| 1-bit, grey, palette, YCbCr, CMYK, Lab | Pillow's conversion |
| alpha, or a colour that counts as transparent | laid over the background |
| 16-bit grey | `v / 257`, so that 65535 becomes 255; 16-bit colour keeps its high byte |
| 32-bit integers | 0..255 is kept in a TIFF; else as 16-bit if all fit; else stretched from least to greatest |
| floats | 0..1 is scaled by 255; else 0..255 is kept; else 0..65535 is divided by 257; else stretched |
"""

import numpy as np
from PIL import Image

from vitrail.data.tiff import is_unsigned


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return the image as RGB over `background`.

    Example:
        >>> to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), (9, 9, 9)).getpixel((0, 0))
        (9, 9, 9)
    """
    image = _eight_bit(image)
    if image.has_transparency_data:
        top = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", top.size, (*background, 255)), top).convert("RGB")
    return _bare(image.convert("RGB"))


def to_grey(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return the image as one channel over `background` (luma of Rec. 601, as Pillow computes it).

    Example:
        >>> to_grey(Image.new("RGB", (1, 1), (255, 0, 0)), (0, 0, 0)).getpixel((0, 0))
        76
    """
    image = _eight_bit(image)
    if image.has_transparency_data or image.mode not in ("1", "L"):
        image = to_rgb(image, background)
    return _bare(image.convert("L"))


def _bare(image: Image.Image) -> Image.Image:
    """Drop text, profile and EXIF; `image` is a copy already, as `convert` always makes one."""
    image.info.clear()
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring deep greys to 8 bits; other modes pass."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bit(np.asarray(image)))
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        return image.convert(image.mode.upper())
    if image.mode == "I":
        values = np.asarray(image)
        if is_unsigned(image):  # Pillow reads them as signed
            values = values.astype(np.int64) % 2**32
        if image.format == "TIFF" and _within(values, 255):
            return Image.fromarray(values.astype(np.uint8))
        return Image.fromarray(_from_16_bit(values) if _within(values, 65535) else _stretch(values))
    if image.mode == "F":
        return Image.fromarray(_from_float(np.asarray(image)))
    return image


def _within(values: np.ndarray, top: float) -> bool:
    return bool(values.min() >= 0 and values.max() <= top)


def _from_16_bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_float(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite numbers")
    if _within(values, 65535):
        scale = 255.0 if _within(values, 1) else 1.0 if _within(values, 255) else 1 / 257
        return np.rint(values.astype(np.float64) * scale).astype(np.uint8)
    return _stretch(values)


def _stretch(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)
