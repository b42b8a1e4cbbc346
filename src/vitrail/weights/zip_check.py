"""Checks of zip files before unpacking: declared sizes against the file's length, checksums."""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from vitrail.errors import DataError

# Exceptions of the zip reader: bad structure, bad data, an unknown compression, a password.
DAMAGED_ZIP = (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, zlib.error)
_MAX_GROWTH, _ALWAYS_FINE = 20, 64 << 20
_DOS_FOLDER = 0x10


def check_archive(path: Path) -> list[str]:
    """Check a zip file and return its members.

    Weights hardly compress, so an archive that would grow twentyfold is a zip bomb.

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


def check_records(path: Path) -> None:
    """Compare every record of a zip file with its checksum; PyTorch's own reader does not.

    It costs a quarter to a third of the time that `torch.load` takes after it. A file that was written without
    checksums (`torch.serialization.set_crc32_options(False)`) has zeros in their place, and nothing to compare with.

    Raises:
        DataError: a record is damaged; the message names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                if (
                    member.file_size and member.external_attr & _DOS_FOLDER
                ):  # PyTorch would read nothing and say nothing
                    raise zipfile.BadZipFile(f"its record {member.filename} is marked as a folder")
            wrong = archive.testzip() if any(member.CRC for member in members) else None
    except DAMAGED_ZIP as error:
        raise DataError(f"{path} is damaged: {error}.\nCopy or download it again.") from error
    if wrong is not None:
        raise DataError(f"{path} is damaged: its record {wrong} differs from its checksum.\nCopy or download it again.")


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
    if file.read(1):  # the zip reader compares the checksum when it has read the last byte
        raise ValueError("it is longer than its header says")
    array = np.frombuffer(bytearray(data), dtype.newbyteorder("="))
    if dtype.byteorder == ">":
        array.byteswap(inplace=True)
    return array.reshape(shape, order="F" if column_first else "C")
