"""Zip files that claim to be checkpoints: their claims are compared with their length before anything is unpacked."""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from vitrail.errors import DataError

# What the zip reader raises: bad structure, bad data, an unknown compression, a password.
DAMAGED_ZIP = (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, zlib.error)
_MAX_GROWTH, _ALWAYS_FINE = 20, 64 << 20


def check_archive(path: Path) -> list[str]:
    """Return the members of a zip file, or refuse it.

    Weights are noise and hardly compress, so an archive that would grow twentyfold is no checkpoint but a bomb.

    Raises:
        DataError: it is damaged, or would unpack to far more than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except DAMAGED_ZIP as error:
        raise DataError(f"{path} is a damaged or cut-off zip file: {error}.\nCopy or download it again.") from error
    size, claimed = path.stat().st_size, sum(member.file_size for member in members)
    if claimed > max(_MAX_GROWTH * size, _ALWAYS_FINE):
        raise DataError(
            f"{path} has {size:,} bytes and would unpack to {claimed:,}: a zip bomb, not a checkpoint.\n"
            "Do not use this file."
        )
    return [member.filename for member in members]


def read_npz(path: Path) -> dict[str, Tensor]:
    """Read the arrays of an npz file, without pickled objects; each header is checked before memory is taken.

    Raises:
        DataError: an array holds objects, is damaged, or is longer than its file.
    """
    tensors = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            try:
                with archive.open(member) as file:
                    array = _read_array(file, member.file_size)
            except (*DAMAGED_ZIP, SyntaxError, TypeError, MemoryError) as error:
                raise DataError(f"{path}: the array {member.filename} cannot be read: {error}.") from error
            tensors[member.filename.removesuffix(".npy")] = torch.from_numpy(array)
    return tensors


def _read_array(file, size: int) -> np.ndarray:
    """Read one npy member of `size` bytes."""
    version = npy.read_magic(file)
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"npy version {version} is not known")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, column_first, dtype = read_header(file)
    if dtype.kind not in "fiub":
        raise ValueError(f"it holds {dtype} (objects, text or records), not plain numbers")
    expected = math.prod(shape) * dtype.itemsize
    if expected > size:
        raise ValueError(f"its header claims {expected:,} bytes, the file has {size:,}")
    data = file.read(expected)
    if len(data) != expected:
        raise ValueError(f"it is cut off after {len(data):,} of {expected:,} bytes")
    array = np.frombuffer(bytearray(data), dtype.newbyteorder("="))
    if dtype.byteorder == ">":
        array.byteswap(inplace=True)
    return array.reshape(shape, order="F" if column_first else "C")
