"""Occupancy grids as clouds: `.npy.gz` files with one shape a row."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from vitrail.data.image_io import ImageDecodeError, open_regular, printable
from vitrail.data.points.arrays import read_array
from vitrail.data.points.cloud import Cloud, Fault, PointFileError

MAX_VALUES = 2**28
"""Most cells of a file."""
_ITEM = 8  # bytes of the widest value


class VoxelRows:
    """Shapes of a file, packed to a bit a cell; empty rows are left out.

    Args:
        path: a `.npy.gz` file of `(n, Z, Y, X)` or `(n, 1, Z, Y, X)`; cells above 0 are occupied.

    Attributes:
        rows: numbers of the rows that are not empty.

    Raises:
        PointFileError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        name = printable(path)
        try:
            grids = read_array(_unpacked(path), MAX_VALUES)
            if grids.ndim not in (4, 5) or grids.dtype.kind not in "biuf" or (grids.ndim == 5 and grids.shape[1] != 1):
                raise Fault(f"an array {grids.shape} of {grids.dtype} is no row of grids (n, Z, Y, X)", "format")
        except Fault as fault:
            raise PointFileError(name, fault.reason, fault.kind) from None
        occupied = (grids > 0).reshape(len(grids), *grids.shape[-3:])
        self.shape = occupied.shape[1:]
        self.rows = np.flatnonzero(occupied.any(axis=(1, 2, 3)))
        self._bits = np.packbits(occupied.reshape(len(grids), -1), axis=1)

    def cloud(self, row: int) -> Cloud:
        """Return the centres of the occupied cells of a row."""
        cells = np.unpackbits(self._bits[row], count=int(np.prod(self.shape))).reshape(self.shape)
        return Cloud(np.argwhere(cells) + 0.5)


def _unpacked(path: Path) -> bytes:
    limit = MAX_VALUES * _ITEM
    try:
        with open_regular(path) as file, gzip.open(file) as stream:
            content = stream.read(limit + 1)
    except ImageDecodeError as error:
        raise Fault(error.reason.replace("image", "point file"), error.kind) from None
    except (OSError, EOFError, zlib.error) as error:
        raise Fault(f"the gzip stream is broken: {error}"[:120], "truncated") from None
    if len(content) > limit:
        raise Fault(f"unpacks to more than {limit:,} bytes", "size")
    return content


def voxelize(points: np.ndarray, side: int) -> np.ndarray:
    """Return the `side`^3 cells of a cloud's bounding cube that hold a point.

    Example:
        >>> voxelize(np.array([[0.0, 0, 0], [1, 1, 1]]), 2).sum()
        np.int64(2)
    """
    low = points.min(axis=0)
    extent = float((points.max(axis=0) - low).max()) or 1.0
    cells = np.minimum(((points - low) / extent * side).astype(np.int64), side - 1)
    grid = np.zeros((side,) * 3, dtype=bool)
    grid[tuple(cells.T)] = True
    return grid
