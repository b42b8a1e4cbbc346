"""Clouds to predict: files, folders, patterns, rows of voxel files, arrays."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vitrail.data.image_io import printable
from vitrail.data.points.cloud import Cloud, Fault, PointFileError, checked
from vitrail.data.points.reading import EXTENSIONS, read_cloud
from vitrail.data.points.voxels import VoxelRows
from vitrail.errors import VitrailError

_VOXELS = ".npy.gz"


class CloudInput(NamedTuple):
    """A cloud that has not been read yet."""

    name: str
    read: Callable[[], Cloud]


def find_clouds(sources: object) -> list[CloudInput]:
    """List clouds without reading them (of voxel files, each row that is not empty).

    Raises:
        VitrailError: there are none.
    """
    found = list(_walk(sources))
    if not found:
        raise VitrailError("No clouds were given. Name files (cloud.off, scan.ply), a folder, or a pattern '*.off'.")
    return [item if item.name else item._replace(name=f"cloud {i}") for i, item in enumerate(found)]


def _walk(source: object) -> Iterator[CloudInput]:
    if isinstance(source, str | os.PathLike):
        for path in _paths(os.fspath(source)):
            yield from _file(path)
    elif isinstance(source, Cloud):
        yield CloudInput("", lambda: source)
    elif isinstance(source, torch.Tensor):
        yield from _walk(source.detach().cpu().numpy())
    elif isinstance(source, np.ndarray):
        for each in source if source.ndim == 3 else [source]:
            yield CloudInput("", lambda each=each: _from_array(each))
    elif isinstance(source, Iterable) and not isinstance(source, bytes):
        for each in source:
            yield from _walk(each)
    else:
        raise VitrailError(f"A {type(source).__name__} is no cloud. Give a path, or an array (n, 3).")


def _from_array(array: np.ndarray) -> Cloud:
    try:
        return checked(Cloud(np.asarray(array, dtype=np.float64)))
    except Fault as fault:
        raise PointFileError("array", fault.reason, fault.kind) from None


def _file(path: str) -> Iterator[CloudInput]:
    if path.endswith(_VOXELS):
        rows = VoxelRows(Path(path))
        for row in rows.rows.tolist():
            yield CloudInput(f"{printable(path)}#{row}", lambda row=row: rows.cloud(row))
    else:
        yield CloudInput(printable(path), lambda: read_cloud(path))


def _paths(text: str) -> list[str]:
    if os.path.isdir(text):
        files = sorted(path for path in Path(text).rglob("*") if path.is_file())
        found = [str(path) for path in files if path.suffix.lower() in EXTENSIONS or path.name.endswith(_VOXELS)]
        if not found:
            raise VitrailError(f"The folder '{printable(text)}' has no clouds ({' '.join(sorted(EXTENSIONS))}).")
        return found
    if os.path.lexists(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []
    if not found:
        raise VitrailError(f"There is no cloud at '{printable(text)}' (looked from {os.getcwd()}).")
    return found
