"""Image files of every kind that a server must read, or refuse: made in memory, none is stored.

Readable ones name the file whose prediction theirs must equal: orientation, depth, frames and appended bytes must not
change it. Refused ones declare sizes that they do not have, end early, are of another format, or expand without bound.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIZE = (64, 48)
MARKUP = '<script>document.title=1</script><img src=x onerror="alert(1)">'


class Case(NamedTuple):
    """One file.

    Args:
        name: short description.
        data: its bytes.
        reads: whether it is an image with a documented meaning.
        same_as: name of the file that has the same prediction.
    """

    name: str
    data: bytes
    reads: bool
    same_as: str = ""


def corpus(seed: int = 0) -> list[Case]:
    """Return all files."""
    return [*readable(_photo(seed)), *refused(_photo(seed))]


def readable(image: Image.Image) -> Iterator[Case]:
    """Yield files that must be read."""
    png, grey = _saved(image, "PNG"), image.convert("L")
    yield Case("png", png, True)
    yield Case("jpeg", jpeg := _saved(image, "JPEG", quality=90), True)
    yield Case("progressive jpeg", _saved(image, "JPEG", quality=90, progressive=True), True, "jpeg")
    yield Case("grey png", _saved(grey, "PNG"), True)
    yield Case("grey jpeg", _saved(grey, "JPEG"), True)
    yield Case("cmyk jpeg", _saved(image.convert("CMYK"), "JPEG"), True)
    for kind in ("BMP", "PPM", "TIFF"):
        yield Case(kind.lower(), _saved(image, kind), True, "png")
    yield Case("lossless webp", _saved(image, "WEBP", lossless=True), True, "png")
    yield Case("opaque rgba png", _saved(image.convert("RGBA"), "PNG"), True, "png")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    yield Case("16-bit png", _saved(deep, "PNG"), True, "grey png")
    yield Case("16-bit tiff", _saved(deep, "TIFF"), True, "grey png")
    yield Case("1-bit png", _saved(image.convert("1"), "PNG"), True)
    yield Case("palette png", _saved(image.quantize(64), "PNG", transparency=0), True)
    yield Case("alpha png", _saved(_transparent(image), "PNG"), True)
    yield Case("gif", gif := _saved(image, "GIF"), True)
    others = [image.rotate(angle) for angle in (90, 180)]
    for kind, lossless in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        twin = "gif" if kind == "GIF" else "png"
        yield Case(
            f"animated {kind.lower()}", _saved(image, kind, save_all=True, append_images=others, **lossless), True, twin
        )
    for number in range(1, 9):
        yield Case(f"exif {number}", _turned(image, number), True, "png")
    yield Case("exif of noise", _saved(image, "JPEG", quality=90, exif=b"Exif\0\0" + bytes(range(200))), True, "jpeg")
    yield Case("tiff whose directory is itself", _tiff(8, 8, loop=True), True)
    for size in ((1, 1), (1, 3000), (3000, 1)):
        yield Case(f"{size[0]}x{size[1]} png", _saved(image.resize(size), "PNG"), True)
    yield Case("jpeg and zip", jpeg + _zip(), True, "jpeg")
    yield Case("png and html", png + MARKUP.encode(), True, "png")
    yield Case("gif and script", gif + b"*/=1;alert(1);/*", True, "gif")
    note = PngInfo()
    note.add_text("Comment", MARKUP)
    yield Case("png with markup in its text", _saved(image, "PNG", pnginfo=note), True, "png")
    exif = Image.Exif()
    exif[0x010E] = MARKUP
    yield Case("jpeg with markup in its exif", _saved(image, "JPEG", quality=90, exif=exif), True, "jpeg")
    yield Case("jpeg with markup in its comment", _saved(image, "JPEG", quality=90, comment=MARKUP), True, "jpeg")


def refused(image: Image.Image) -> Iterator[Case]:
    """Yield files that must be refused."""
    png, jpeg, gif = (_saved(image, kind) for kind in ("PNG", "JPEG", "GIF"))
    for name, data in {
        "empty": b"",
        "one byte": b"\xff",
        "png of 3.6 gigapixels": _declared(png, 60_000, 60_000),
        "png of more pixels than its data": _declared(png, 640, 480),
        "png of no width": _declared(png, 0, 48),
        "png of 27 megapixels of zeros": _blank(9000, 3000),
        "png with a wrong checksum": png[:29] + bytes([png[29] ^ 255]) + png[30:],
        "png with a text of 64 MB": _with_chunk(png, b"zTXt", b"k\0\0" + _zeros(1 << 26)),
        "gif of 65535 by 65535": gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:],
        "bmp of a gigapixel": _bmp(32_768, 32_768),
        "ppm of a gigapixel": b"P6 32768 32768 255 abc",
        "tiff of a gigapixel": _tiff(32_768, 32_768),
        "webp of 16383 by 16383": _webp(16_383, 16_383),
        "jpeg of 65535 by 65535": _jpeg_size(jpeg, 65_535, 65_535),
        "jpeg of no height": _jpeg_size(jpeg, 0, 64),
        "half a jpeg": jpeg[: len(jpeg) // 2],
        "header of a jpeg": jpeg[:20],
        "half a png": png[: len(png) // 2],
        "header of a gif": gif[:13],
        "png in gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + zlib.compress(png)[2:],
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><rect width="9" height="9"/></svg>',
        "html": f"<html>{MARKUP}</html>".encode(),
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run",
        "zip": _zip(),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(64),
        "icon": _saved(image.resize((32, 32)), "ICO"),
        "text in a png signature": b"\x89PNG\r\n\x1a\n" + b"not chunks" * 20,
        "xbm, a program": b"#define x_width 9\n#define x_height 9\nstatic char x_bits[] = {0};",
    }.items():
        yield Case(name, data, False)


def _photo(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _transparent(image: Image.Image) -> Image.Image:
    made = image.convert("RGBA")
    made.putalpha(Image.linear_gradient("L").resize(image.size))
    return made


def _turned(image: Image.Image, number: int) -> bytes:
    """Return the image stored so that EXIF orientation `number` shows it upright."""
    flips = Image.Transpose
    turns = {2: flips.FLIP_LEFT_RIGHT, 3: flips.ROTATE_180, 4: flips.FLIP_TOP_BOTTOM, 5: flips.TRANSPOSE,
             6: flips.ROTATE_90, 7: flips.TRANSVERSE, 8: flips.ROTATE_270}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = number
    stored = image.transpose(turns[number]) if number in turns else image
    return _saved(stored, "PNG", exif=exif)


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil.py", "raise SystemExit")
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _declared(png: bytes, width: int, height: int) -> bytes:
    """Return a PNG with another size in its header."""
    return png[:8] + _chunk(b"IHDR", struct.pack(">II", width, height) + png[24:29]) + png[33:]


def _with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    return png[:33] + _chunk(kind, content) + png[33:]


def _zeros(size: int) -> bytes:
    """Return zeros in a stream of zlib, a thousandth as long."""
    pack = zlib.compressobj(9)
    return b"".join([*(pack.compress(bytes(1 << 20)) for _ in range(size >> 20)), pack.flush()])


def _blank(width: int, height: int) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = _zeros((width + 1) * height + (1 << 20))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def _tiff(width: int, height: int, loop: bool = False) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 64)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    following = 8 if loop else 0
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", following)


def _webp(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", 0x02) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    content = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + canvas
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _jpeg_size(jpeg: bytes, height: int, width: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]
