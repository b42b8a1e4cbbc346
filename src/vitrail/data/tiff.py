"""TIFF facts that Pillow does not report: layouts that it decodes wrongly or not at all."""

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from struct import error as StructError
from struct import unpack
from typing import IO, Any

from PIL import Image

BITS, COMPRESSION, CHANNELS, PLANES, SAMPLE_FORMAT = 258, 259, 277, 284, 339
SEPARATE, UNSIGNED = 2, 1
_SIZES = {1: 1, 3: 2, 4: 4}
_KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex numbers"}
_COMMON = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
"""Compressions that every libtiff decodes: none, CCITT, LZW, JPEG, deflate, PackBits."""
_LOCK = threading.Lock()

log = logging.getLogger(__name__)


class _Reading(threading.local):
    """Whether this thread is reading a file, whose faults become errors of ours."""

    now = False


_READING = _Reading()


def read_tags(head: bytes, most: int = 64) -> dict[int, list[int]] | None:
    """Return the integer tags of the first directory of a TIFF, or None if these bytes are not one.

    Args:
        head: the file, or its beginning if the directory is there.
        most: values of a tag at most; longer ones are left out.

    Example:
        >>> read_tags(b"no TIFF") is None
        True
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None:
        return None
    tags: dict[int, list[int]] = {}
    try:
        (start,) = unpack(order + "I", head[4:8])
        (count,) = unpack(order + "H", head[start : start + 2])
        for number in range(min(count, 200)):
            place = start + 2 + 12 * number
            tag, kind, length = unpack(order + "HHI", head[place : place + 8])
            size = _SIZES.get(kind)
            if size is None or length > most:
                continue
            at = place + 8
            if size * length > 4:
                (at,) = unpack(order + "I", head[at : at + 4])
            letter = {1: "B", 2: "H", 4: "I"}[size]
            tags[tag] = list(unpack(f"{order}{length}{letter}", head[at : at + size * length]))
    except StructError:
        return tags
    return tags


def describe(head: bytes) -> str | None:
    """Describe the contents of an unreadable TIFF.

    Example:
        >>> describe(b"not a TIFF") is None
        True
    """
    tags = read_tags(head)
    if tags is None:
        return None
    channels = tags.get(CHANNELS, [1])[0]
    bits = "/".join(str(bit) for bit in dict.fromkeys(tags.get(BITS, [1])))
    kind = _KINDS.get(tags.get(SAMPLE_FORMAT, [1])[0], "unknown values")
    many = "1 channel" if channels == 1 else f"{channels} channels"
    return f"a TIFF of {many} of {bits}-bit {kind}; 1, 3 or 4 channels of 8 or 16 bits are read, and 32-bit grey"


def undecodable(head: bytes, text: str) -> tuple[str, str] | None:
    """Return reason and kind of an error of Pillow's on a TIFF; None if it is another file, or has another fault.

    Args:
        head: the file, or its beginning if the directory is there.
        text: the message in lower case.
    """
    tags = read_tags(head)
    if tags is None:
        return None
    if "unknown raw mode" in text:
        return str(describe(head)), "format"
    if "decoder error -2" not in text and "not available" not in text:
        return None
    if tags.get(COMPRESSION, [1])[0] in _COMMON:
        return "the file is broken (its compressed pixels cannot be decoded)", "broken"
    return "its compression is not built into Pillow", "format"


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep Pillow from logging what it raises too, in this thread."""
    logger = logging.getLogger("PIL.TiffImagePlugin")
    if _is_foreign not in logger.filters:
        logger.addFilter(_is_foreign)
    before, _READING.now = _READING.now, True
    try:
        yield
    finally:
        _READING.now = before


def _is_foreign(record: logging.LogRecord) -> bool:
    return not _READING.now


def fault(image: Image.Image) -> str | None:
    """Return why an opened TIFF would be decoded wrongly: deep samples in separate planes are taken for bytes.

    Example:
        >>> from PIL import Image
        >>> fault(Image.new("L", (1, 1))) is None
        True
    """
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None or tags.get(PLANES, 1) != SEPARATE:
        return None
    if max(_numbers(tags.get(BITS, 1))) <= 8:
        return None
    return "a TIFF of more than 8 bits with separate planes is not read; save it with interleaved channels"


def is_unsigned(image: Image.Image) -> bool:
    """Return whether a TIFF of 32-bit integers stores them unsigned.

    Example:
        >>> from PIL import Image
        >>> is_unsigned(Image.new("I", (1, 1)))
        False
    """
    tags = getattr(image, "tag_v2", None)
    return tags is not None and max(_numbers(tags.get(SAMPLE_FORMAT, 1))) == UNSIGNED


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Keep libtiff from writing to standard error; its first message is logged with the name of the file."""
    with _LOCK, tempfile.TemporaryFile() as messages:
        try:
            kept = os.dup(2)
        except OSError:  # no standard error
            yield
            return
        os.dup2(messages.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            _report(messages, name)


def _report(messages: IO[bytes], name: str) -> None:
    messages.seek(0)
    lines = messages.read(4096).decode(errors="replace").strip().splitlines()
    if lines:
        log.warning("%s: libtiff: %s", name, lines[0][:200])


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
