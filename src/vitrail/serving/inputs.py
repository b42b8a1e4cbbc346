"""Inputs of requests: bytes and texts of strangers as items of a task. Nothing is written, no path is opened."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from PIL import Image

from vitrail.data.image_io import ImageDecodeError, open_image, read_size
from vitrail.data.points.reading import read_cloud
from vitrail.errors import DataError
from vitrail.serving.limits import Limits
from vitrail.serving.refusal import Refusal, too_large
from vitrail.tasks.image_sources import SourceImage
from vitrail.tasks.points.sources import CloudInput
from vitrail.tasks.text_sources import TextLine

Item = SourceImage | TextLine | CloudInput
"""An input of a task, read when it is needed."""

Content = bytes | str
"""What a request sends for one input: the bytes of a file, or a string (base64, a `data:` URL, or a text)."""


def make_input(kind: str, content: Content, limits: Limits, name: str = "input", max_pixels: int | None = None) -> Item:
    """Return the item of a task for one input of a request; it is decoded by `read()`.

    Args:
        kind: `image`, `text` or `points`.
        content: bytes, or a string: the text itself for texts, else base64 or a `data:` URL.
        limits: limits of the server.
        name: name in results and errors; names of the client are not used.
        max_pixels: limit of the model, if it is lower than that of the server.

    Raises:
        DataError: the content cannot be read, or is above a limit.

    Example:
        >>> make_input("text", "a joy", Limits()).text
        'a joy'
        >>> make_input("image", b"P5 2 1 255 ab", Limits()).read().size
        (2, 1)
    """
    return KINDS[kind](content, limits, name, max_pixels)


def _text(content: Content, limits: Limits, name: str, max_pixels: int | None) -> TextLine:
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError("The text is not UTF-8.") from None
    if len(content) > limits.text:
        raise DataError(f"The text has {len(content):,} characters; the limit is {limits.text:,}.")
    return TextLine(name, content)


def _image(content: Content, limits: Limits, name: str, max_pixels: int | None) -> SourceImage:
    data, limit = _bytes(content), min(limits.pixels, max_pixels or limits.pixels)
    width, height = read_size(data, name)
    if width * height > limit:
        raise ImageDecodeError(name, f"{width}x{height} is more than {limit:,} pixels", "size")

    def draft(least: int | None) -> Image.Image:
        return open_image(data, max_pixels=limit, draft=least, aligned=True, name=name)

    return SourceImage(name, lambda: draft(None), draft=draft, content=data)


def _points(content: Content, limits: Limits, name: str, max_pixels: int | None) -> CloudInput:
    data = _bytes(content)
    return CloudInput(name, lambda: read_cloud(data, name))


KINDS: dict[str, Callable[[Content, Limits, str, int | None], Any]] = {
    "image": _image,
    "text": _text,
    "points": _points,
}
"""Readers by kind of input."""


def hold(item: Item, limits: Limits) -> Item:
    """Return an image item that keeps its decoded image, for a drawing; other items are returned as they are.

    Raises:
        DataError: it has too many pixels to be drawn.
    """
    if not isinstance(item, SourceImage) or item.held is not None:
        return item
    image = item.read()
    if image.width * image.height > limits.drawn_pixels:
        size = f"{image.width}x{image.height}"
        raise DataError(f"A drawing is limited to {limits.drawn_pixels:,} pixels, and the image has {size}.")
    return replace(item, held=image, read=lambda: image)


def _bytes(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    if content.startswith("data:"):
        head, _, content = content.partition(",")
        if not head.endswith(";base64"):
            raise DataError("A data: URL must be in base64.")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise DataError("The input is neither base64 nor a data: URL.") from None


def check_count(count: int, limits: Limits) -> None:
    """Check the number of inputs of a request.

    Example:
        >>> check_count(17, Limits())
        Traceback (most recent call last):
        vitrail.serving.refusal.Refusal: A request of 17 inputs is too large; the limit is 16 inputs.
    """
    if count < 1:
        raise Refusal(400, "bad_request", "There is no input.")
    if count > limits.inputs:
        raise too_large(f"A request of {count} inputs", limits.inputs, "inputs")
