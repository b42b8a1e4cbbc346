"""Images as bytes of files and as `data:` URLs, for JSON files and self-contained pages."""

import base64
from io import BytesIO

from PIL import Image


def encode(image: Image.Image, exact: bool = False) -> str:
    """Return an image as a `data:` URL: PNG if it is small or must stay `exact`, else JPEG.

    Example:
        >>> encode(Image.new("L", (1, 1)))[:22], encode(Image.new("L", (99, 1)))[:23]
        ('data:image/png;base64,', 'data:image/jpeg;base64,')
    """
    buffer = BytesIO()
    png = exact or max(image.size) <= 64
    image.save(buffer, "PNG", optimize=True) if png else image.save(buffer, "JPEG", quality=85)
    return f"data:image/{'png' if png else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def to_png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG file without metadata.

    Example:
        >>> to_png(Image.new("L", (1, 1)))[:4]
        b'\x89PNG'
    """
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def to_jpeg(image: Image.Image, quality: int) -> bytes:
    """Return an image as the bytes of a JPEG file.

    Example:
        >>> to_jpeg(Image.new("L", (1, 1)), 90)[6:10]
        b'JFIF'
    """
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode(url: str) -> Image.Image:
    """Return the image of a `data:` URL made by `encode`.

    Example:
        >>> decode(encode(Image.new("L", (2, 1), 7))).getpixel((1, 0))
        7
    """
    image = Image.open(BytesIO(base64.b64decode(url.partition(",")[2])), formats=("PNG", "JPEG"))
    image.load()
    return image
