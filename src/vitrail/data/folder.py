"""A folder of folders of images on a disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from vitrail.data.class_folders import arrange
from vitrail.data.dataset import Span
from vitrail.data.image_io import EXTENSIONS, printable
from vitrail.data.index import DatasetIndex


def list_folder(root: Path) -> DatasetIndex:
    """List the images under a folder; links are followed, a loop of links is walked once."""
    files: dict[str, Path | Span] = {}
    folders: list[str] = []
    for path, is_folder in _walk(root, set()):
        key = printable(path.relative_to(root).as_posix())
        if is_folder:
            folders.append(key)
        else:
            files[key] = path
    return arrange(printable(root.name or str(root)), files, folders)


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[tuple[Path, bool]]:
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in above:
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        is_folder = entry.is_dir()
        # A folder called x.jpg is a mistake: pass it on as a file, so that reading it raises a named error.
        if is_folder and not _looks_like_image(entry.name):
            yield Path(entry.path), True
            yield from _walk(Path(entry.path), above | {identity})
        else:
            yield Path(entry.path), False


def _looks_like_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS
