"""Images that tests draw, and their files."""

from io import BytesIO

import numpy as np
from PIL import Image


def smooth_image(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth image that is unlike the others: random colours, scaled up."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
