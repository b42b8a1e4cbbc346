"""NPY and NPZ files of points; nothing is unpickled."""

import io
import struct
import zipfile
import zlib
from tokenize import TokenError

import numpy as np

from vitrail.data.points.cloud import MAX_POINTS, Cloud, Fault

_POINTS, _FACES, _PARTS = (
    ("points", "xyz", "coords", "vertices", "pos"),
    ("faces", "triangles"),
    ("parts", "labels", "seg"),
)
# Exceptions of NumPy's and zipfile's parsers for damaged headers (warnings too, if a program makes them errors).
_BROKEN = (
    *(ValueError, TypeError, LookupError, ArithmeticError, EOFError, OSError, RuntimeError, SyntaxError, Warning),
    *(TokenError, struct.error, zlib.error, zipfile.BadZipFile),
)
_MAX_COLUMNS = 64


def read_npy(content: bytes) -> Cloud:
    """Read an array `(n, 3 or more)`; the first three columns are x, y and z."""
    return Cloud(_points(read_array(content)))


def read_npz(content: bytes) -> Cloud:
    """Read the arrays `points` (or `xyz`, `coords`, `vertices`, `pos`, or the only one), `faces` and `parts`."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            place = next((name for name in _POINTS if name in members), None)
            if place is None and len(members) == 1:
                (place,) = members
            if place is None:
                raise Fault(f"has no array named {', '.join(_POINTS)}; it has {', '.join(members)[:80]}", "format")
            found = {}
            for role, names in (("points", (place,)), ("faces", _FACES), ("parts", _PARTS)):
                name = next((each for each in names if each in members), None)
                if name is not None:
                    _check_bytes(members[name].file_size)
                    found[role] = read_array(archive.read(members[name]))
    except _BROKEN as error:
        raise Fault(f"the archive is broken: {error}"[:120], "broken") from None
    points = _points(found.pop("points"))
    for name, array in found.items():
        if array.dtype.kind not in "iu":
            raise Fault(f"{name} are {array.dtype}; integers are needed", "format")
    faces, parts = found.get("faces"), found.get("parts")
    if faces is not None and (faces.ndim != 2 or faces.shape[1] != 3):
        raise Fault(f"faces are {faces.shape}; (m, 3) is needed", "format")
    if parts is not None and len(parts) != len(points if faces is None else faces):
        raise Fault(f"{len(parts)} part numbers do not fit {len(points)} points", "format")
    return Cloud(points, None if faces is None else faces.astype(np.int64), parts)


def read_array(content: bytes, limit: int = MAX_POINTS * _MAX_COLUMNS) -> np.ndarray:
    """Read an NPY array whose header agrees with the number of its bytes.

    Raises:
        Fault: it is no NPY file, needs unpickling, or is shorter than its header declares.

    Example:
        >>> import io
        >>> buffer = io.BytesIO()
        >>> np.save(buffer, np.zeros((4, 3)))
        >>> read_array(buffer.getvalue()).shape
        (4, 3)
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise Fault("holds Python objects, which are not unpickled", "format")
        count = 1
        for length in shape:
            count *= length
        if count > limit:
            raise Fault(f"declares {count:,} values; at most {limit:,} are read", "size")
        if count * dtype.itemsize > len(content) - file.tell():
            raise Fault(f"declares {count:,} values and ends too early", "truncated")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except _BROKEN as error:
        raise Fault(f"the array is broken: {error}"[:120], "broken") from None


def _check_bytes(size: int) -> None:
    if size > MAX_POINTS * _MAX_COLUMNS:
        raise Fault(f"an array of {size:,} bytes is more than is read", "size")


def _points(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu" or array.ndim != 2 or not 3 <= array.shape[1] <= _MAX_COLUMNS:
        raise Fault(f"an array {array.shape} of {array.dtype} is no cloud; (n, 3) numbers are needed", "format")
    return array[:, :3].astype(np.float64)
