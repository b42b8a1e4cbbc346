"""Reading of point files: `read_cloud`.

Files come from strangers. A file is either read completely or refused with a `PointFileError` that names the file and
the reason; declared counts are compared with the size of the file before anything is allocated. The format is taken
from the content, except for plain tables of numbers.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from vitrail.data.image_io import ImageDecodeError, open_regular, printable
from vitrail.data.points.arrays import read_npy, read_npz
from vitrail.data.points.cloud import Cloud, Fault, PointFileError, checked
from vitrail.data.points.las import read_las
from vitrail.data.points.off import read_off, without_comments
from vitrail.data.points.ply import read_ply
from vitrail.data.points.text_table import read_table

EXTENSIONS = frozenset([".off", ".ply", ".npy", ".npz", ".xyz", ".csv", ".txt", ".pts", ".las", ".laz"])
"""Endings that a search in a folder takes for point files."""

MAX_BYTES = 2 * 2**30
"""Largest file that is read."""


class PointFormat(NamedTuple):
    """A file format: its first bytes, and its reader."""

    starts: tuple[bytes, ...]
    read: Callable[[bytes], Cloud]


OFF = (b"OFF", b"COFF", b"NOFF", b"CNOFF", b"STOFF")
FORMATS = (
    PointFormat((b"ply",), read_ply),
    PointFormat((b"\x93NUMPY",), read_npy),
    PointFormat((b"PK\x03\x04", b"PK\x05\x06"), read_npz),
    PointFormat((b"LASF",), read_las),
    PointFormat(OFF, read_off),
)


def read_cloud(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Cloud:
    """Read a cloud or mesh: OFF, PLY (text or binary), NPY, NPZ, LAS, or a table of numbers (XYZ, CSV).

    Args:
        source: a path, or the bytes of a file.
        name: name in errors; the path by default.

    Raises:
        PointFileError: it cannot be read; `.reason` is the cause.

    Example:
        >>> read_cloud(b"OFF 3 1 0  0 0 0  1 0 0  0 1 0  3 0 1 2").faces.tolist()
        [[0, 1, 2]]
        >>> read_cloud(b"1 2 nan", "scan.xyz")
        Traceback (most recent call last):
        vitrail.data.points.cloud.PointFileError: scan.xyz: point 0 is [1.0, 2.0, nan]; coordinates must be finite
    """
    name = name or (f"{len(source)} bytes" if isinstance(source, bytes) else printable(source))
    try:
        content = source if isinstance(source, bytes) else _content(source, name)
        if not content.strip():
            raise Fault("the file is empty", "empty")
        start = content[:1024].lstrip()
        found = [each.read for each in FORMATS if start.startswith(each.starts)]
        if not found and without_comments(content[:65536]).startswith(OFF):
            found = [read_off]
        return checked((found[0] if found else read_table)(content))
    except Fault as fault:
        raise PointFileError(name, fault.reason, fault.kind) from None
    except MemoryError:
        raise PointFileError(name, "the file does not fit in memory", "size") from None


def _content(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        with open_regular(path, name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise Fault(f"{size:,} bytes; at most {MAX_BYTES:,} are read", "size")
            return file.read()
    except ImageDecodeError as error:
        raise Fault(error.reason.replace("image", "point file"), error.kind) from None
