"""LAS and LAZ scans, by the package laspy (extra `points`)."""

import io

import numpy as np

from vitrail.data.points.cloud import Cloud, Fault, check_size


def read_las(content: bytes) -> Cloud:
    """Read the scaled coordinates of a LAS file; classes of points are their parts.

    Raises:
        Fault: laspy is not installed, or it cannot read the file.
    """
    try:
        import laspy
    except ImportError:
        raise Fault("LAS files need laspy: pip install 'vitrail[points]'", "format") from None
    try:
        with laspy.open(io.BytesIO(content)) as file:
            check_size(file.header.point_count)
            points = file.read()
            return Cloud(
                np.asarray(points.xyz, dtype=np.float64), None, np.asarray(points.classification, dtype=np.int64)
            )
    except (laspy.errors.LaspyException, ValueError, EOFError, OSError, KeyError, IndexError) as error:
        raise Fault(f"laspy cannot read it: {error}"[:160], "broken") from None
