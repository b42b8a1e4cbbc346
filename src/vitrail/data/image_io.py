"""Image decoding: `open_image`.

Files come from strangers. An image is either decoded, with a stated meaning for each kind of pixel (see `color.py`),
or refused with an `ImageDecodeError` that names the file and the reason. The size is read from the header before any
pixel is decoded; anything that is not a regular file is refused before it is read, so a named pipe cannot hang a
training. No global switch of Pillow is touched.
"""

import os
import stat
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image

from vitrail.data import tiff
from vitrail.data.bands import BandImage, bands_of, read_bands
from vitrail.data.color import to_grey, to_rgb
from vitrail.errors import DataError

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""What an image can be read from: a path, the bytes of a file, an open binary file."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that are read, by content; the name of a file does not matter."""

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
"""Endings that a search for images in a folder takes for images."""

BANDS = frozenset([".npy"])
"""Endings that are taken for images where there are no others."""

ANY = "any"
"""Mode of `open_image`: bands where the file has them, else RGB."""

MAX_PIXELS = 50_000_000
"""The pixel limit: images with more are refused from the header."""

_ORIENTATION = 0x0112
# Exceptions of Pillow's EXIF parser for blocks that are not EXIF (warnings too, if a program makes them errors).
_EXIF_FAULTS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, Warning)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageDecodeError(DataError):
    """An image that cannot be used.

    Args:
        name: the file, for display.
        reason: cause of the failure.
        kind: category: `missing`, `access`, `not a file`, `empty`, `format`, `size`, `truncated`, `broken`.
    """

    def __init__(self, name: str, reason: str, kind: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason, self.kind = name, reason, kind

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.reason, self.kind)


def open_image(
    source: Source,
    mode: str = "RGB",
    *,
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    draft: int | None = None,
    aligned: bool = False,
    name: str | None = None,
) -> Image.Image:
    """Read an image into 8-bit RGB or grey, upright.

    EXIF orientation is applied. 16-bit values are scaled, not clipped. Transparent pixels lie over `background`. CMYK
    is read as Pillow reads it, Adobe's inverted files included. Colour profiles are not applied (neither timm nor
    torchvision does). Of an animation the first image is taken.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        mode: `RGB`, or `L` for one channel; `4 bands` for another number (see `bands.py`), which gives a `BandImage`;
            `any` for bands where the file has them, else RGB.
        background: colour under transparent pixels.
        max_pixels: most pixels that an image may have.
        draft: let a JPEG be decoded at 1/2, 1/4 or 1/8 as long as no side falls under this length; faster.
        aligned: only by a factor that divides both sides, so that the image keeps its aspect ratio to the pixel.
        name: name of the image in errors; the path by default.

    Raises:
        ImageDecodeError: the image cannot be decoded; `.reason` is the cause.

    Example:
        >>> open_image(b"P5 2 1 255 " + bytes([0, 255])).getpixel((1, 0))
        (255, 255, 255)
        >>> open_image(b"P5 9 9 255 ", name="small.pgm")
        Traceback (most recent call last):
        vitrail.data.image_io.ImageDecodeError: small.pgm: the file ends too early
    """
    name = name or _name(source)
    if bands_of(mode) is not None or mode == ANY:
        bands: Any = _open_bands(source, mode, max_pixels, name)
        if bands is not None:
            return bands
        mode = "RGB"
    if mode not in ("RGB", "L"):
        raise ValueError(f"open_image gives RGB, L or bands, not {mode!r}")
    with _opened(source, name) as file:
        refuse = partial(ImageDecodeError, name)
        _check_webp(file, max_pixels, refuse)
        image = _guard(lambda: Image.open(file, formats=FORMATS), refuse, file)
        _check_size(image.size, max_pixels, refuse)
        if reason := tiff.fault(image):
            raise refuse(reason, "format")
        with image, tiff.quiet(name) if image.format == "TIFF" else nullcontext():
            return _guard(lambda: _decode(image, mode, background, draft, aligned), refuse, file)


def _open_bands(source: Source, mode: str, max_pixels: int, name: str) -> BandImage | None:
    """Return an image with its bands; None for an ordinary image, if any is wanted."""
    refuse = partial(ImageDecodeError, name)
    with _opened(source, name) as file:
        content = file.read()
        try:
            planes = read_bands(content, max_pixels)
            wanted = bands_of(mode)
            if planes is None and wanted is not None:  # bands that Pillow has, such as infrared stored as alpha
                image = _guard(lambda: Image.open(file, formats=FORMATS), refuse, file)
                _check_size(image.size, max_pixels, refuse)
                if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
                    values = np.asarray(_guard(lambda: image.convert(image.mode), refuse, file))
                    planes = np.atleast_3d(values).transpose(2, 0, 1)
        except (ValueError, EOFError, zlib.error, KeyError) as error:
            if isinstance(error, ImageDecodeError):
                raise
            raise refuse(str(error), "format") from error
    if planes is None and mode == ANY:
        return None
    if planes is None or (wanted is not None and len(planes) != wanted):
        found = "is no image of bands" if planes is None else f"has {len(planes)} bands"
        raise refuse(f"{found}; the model takes {wanted} (--set in_channels={wanted})", "format")
    return BandImage(planes)


def load_stored(
    source: Source, prepare: Callable[[Image.Image], None] = lambda image: None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read an image as it is stored: its own mode, bits and orientation; see `stored_image`.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        prepare: called with the opened image before its pixels are decoded.
        max_pixels: most pixels that an image may have.

    Raises:
        ImageDecodeError: the image cannot be decoded.
    """
    name = _name(source)
    with _opened(source, name) as file:
        refuse = partial(ImageDecodeError, name)
        _check_webp(file, max_pixels, refuse)
        image = _guard(lambda: Image.open(file, formats=FORMATS), refuse, file)
        _check_size(image.size, max_pixels, refuse)

        if reason := tiff.fault(image):
            raise refuse(reason, "format")

        def load() -> Image.Image:
            prepare(image)
            image.load()
            return image

        with tiff.quiet(name) if image.format == "TIFF" else nullcontext():
            return _guard(load, refuse, file)


def read_size(source: Source, name: str | None = None) -> tuple[int, int]:
    """Return the stored width and height from the header, without decoding a pixel.

    Example:
        >>> read_size(b"P5 2 1 255 " + bytes([0, 255]))
        (2, 1)
    """
    name = name or _name(source)
    with _opened(source, name) as file:
        refuse = partial(ImageDecodeError, name)
        _check_webp(file, MAX_PIXELS, refuse)
        with _guard(lambda: Image.open(file, formats=FORMATS), refuse, file) as image:
            return image.size


def read_orientation(source: Source, name: str | None = None) -> int:
    """Return the EXIF orientation from the header, 1 (upright) to 8, without decoding a pixel.

    Example:
        >>> read_orientation(b"P5 2 1 255 " + bytes([0, 255]))
        1
    """
    name = name or _name(source)
    with _opened(source, name) as file:
        refuse = partial(ImageDecodeError, name)
        with _guard(lambda: Image.open(file, formats=FORMATS), refuse, file) as image:
            return _orientation(image)


def printable(name: str | bytes | os.PathLike[str]) -> str:
    """Return a file name that can be printed, logged and stored: odd bytes and control characters are escaped.

    Example:
        >>> printable(b"caf\\xe9.jpg")
        'caf\\\\xe9.jpg'
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_regular(path: str | os.PathLike[str], name: str | None = None) -> IO[bytes]:
    """Open a regular file for reading; everything else is an `ImageDecodeError`, and nothing blocks."""
    refuse = partial(ImageDecodeError, name or printable(path))
    try:  # O_NONBLOCK: opening a named pipe must not wait for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        dangling = os.path.islink(path)
        reason = "the link points to a file that does not exist" if dangling else "no such file"
        raise refuse(reason, "missing") from error
    except IsADirectoryError as error:  # Windows and a few others refuse at open
        raise refuse("this is a folder, not an image", "not a file") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise refuse(f"cannot be opened: {reason.lower()}", "access") from error
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(handle, "rb")
    os.close(handle)
    what = "folder" if stat.S_ISDIR(kind) else "named pipe" if stat.S_ISFIFO(kind) else "device"
    raise refuse(f"this is a {what}, not an image", "not a file")


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return printable(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{memoryview(source).nbytes} bytes"
    name = getattr(source, "name", None)
    return printable(name) if isinstance(name, str | bytes) else "the image"


def _opened(source: Source, name: str) -> IO[bytes]:
    """Return a binary file of our own, so that closing it never closes a file of the caller."""
    if isinstance(source, str | os.PathLike):
        file = open_regular(source, name)
    else:
        file = BytesIO(source if isinstance(source, bytes | bytearray | memoryview) else source.read())
    if not file.read(1):
        file.close()
        raise ImageDecodeError(name, "the file is empty (0 bytes)", "empty")
    file.seek(0)
    return file


def _guard(
    call: Callable[[], Image.Image], refuse: Callable[[str, str], ImageDecodeError], file: IO[bytes]
) -> Image.Image:
    """Run Pillow on bytes of a stranger, and give each of its many failures one type."""
    try:
        with tiff.unlogged():
            return call()
    except (MemoryError, ImageDecodeError):
        raise
    except Image.UnidentifiedImageError as error:
        if what := tiff.describe(_head(file)):
            raise refuse(what, "format") from error
        raise refuse(f"not an image in a format that is read ({', '.join(FORMATS)})", "format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise refuse(f"far too many pixels ({str(error).split(',')[0]})", "size") from error
    except Exception as error:  # on broken files Pillow's plugins raise nearly every built-in type
        text = str(error).strip().lower() or type(error).__name__
        early = ("truncated", "unexpected end", "not enough", "end of file", "eof", "unpack requires", "incomplete")
        if isinstance(error, EOFError) or any(word in text for word in early):
            raise refuse("the file ends too early", "truncated") from error
        if told := tiff.undecodable(_head(file), text):
            raise refuse(*told) from error
        raise refuse(f"the file is broken ({text.splitlines()[0][:100]})", "broken") from error


def _head(file: IO[bytes]) -> bytes:
    """Return the file for a look at its tags; the directory of a TIFF is often its end."""
    try:
        file.seek(0)
        return file.read(1 << 26)
    except (OSError, ValueError):  # closed by Pillow
        return b""


def _check_size(size: tuple[int, int], limit: int, refuse: Callable[[str, str], ImageDecodeError]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise refuse(f"the header gives a size of {width}x{height}", "broken")
    if width * height > limit:
        shape = f"{width}x{height} is {width * height / 1e6:.1f} million pixels"
        raise refuse(f"{shape}, the limit is {limit / 1e6:g} million", "size")


def _check_webp(file: IO[bytes], limit: int, refuse: Callable[[str, str], ImageDecodeError]) -> None:
    """Check the size of a WebP ourselves: its decoder allocates the whole canvas when it opens the file."""
    head = file.read(30)
    file.seek(0)
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return
    little = partial(int.from_bytes, byteorder="little")
    if head[12:16] == b"VP8X":
        size = little(head[24:27]) + 1, little(head[27:30]) + 1
    elif head[12:16] == b"VP8L":
        size = (little(head[21:25]) & 0x3FFF) + 1, (little(head[21:25]) >> 14 & 0x3FFF) + 1
    else:
        size = little(head[26:28]) & 0x3FFF, little(head[28:30]) & 0x3FFF
    _check_size(size, limit, refuse)


def _decode(
    image: Image.Image, mode: str, background: tuple[int, int, int], draft: int | None, aligned: bool
) -> Image.Image:
    if draft:
        wide, tall = image.size
        fitting = [by for by in (8, 4, 2) if min(wide, tall) >= by * draft]
        scale = next((by for by in fitting if not aligned or wide % by == tall % by == 0), 1)
        if scale > 1:  # Pillow picks the smallest image whose sides are at least these
            image.draft(None, (wide // scale, tall // scale))
    image.load()
    orientation = _orientation(image)
    image = to_rgb(image, background) if mode == "RGB" else to_grey(image, background)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def exif_block(image: Image.Image) -> bytes | None:
    """Return the EXIF block of an image, or None if it has none or one that cannot be read.

    Example:
        >>> exif_block(Image.new("L", (1, 1))) is None
        True
    """
    try:
        entries = image.getexif()
        return entries.tobytes() if len(entries) else None
    except _EXIF_FAULTS:
        return None


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; one that cannot be read means upright, as the rest of the image may be fine."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _EXIF_FAULTS:
        return 1
    return value if isinstance(value, int) else 1
