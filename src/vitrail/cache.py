"""Cache folder for data that can be recomputed: unpacked archives, decoded images.

Deleting it is always safe. It is `$VITRAIL_CACHE`, or `vitrail` in the user's cache folder, or, if that cannot be
written, a private temporary folder.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO

from vitrail.atomic_io import full_disk
from vitrail.errors import ResourceError

ABANDONED = 3600
"""Seconds after which nobody works any more on what was not finished. Processes are not asked: several machines may
share a home."""


def cache_folder(kind: str) -> Path:
    """Return an existing, writable folder of the cache."""
    asked = os.environ.get("VITRAIL_CACHE")
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    private = Path(tempfile.gettempdir()) / f"vitrail-{user}"
    for folder in [Path(asked)] if asked else [Path(usual) / "vitrail", private]:
        try:
            (folder / kind).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        # In a world-writable folder another user may own the path already.
        ours = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid() or folder != private
        if ours and os.access(folder / kind, os.W_OK):
            return folder / kind
    raise ResourceError(
        f"No folder for cached data can be written ({asked or usual}).\nSet VITRAIL_CACHE to a folder that can."
    )


def fingerprint(*parts: object) -> str:
    """Return a short hash of the parts, for the name of a cache entry.

    Example:
        >>> fingerprint("a", 1) == fingerprint("a", 1) != fingerprint("a1")
        True
    """
    digest = blake2b(digest_size=12)
    for part in parts:
        digest.update(repr(part).encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()


def stamp(path: Path) -> tuple[str, int, int]:
    """Return a key that changes if a file is replaced: its full path, size and modification time.

    Example:
        >>> stamp(Path(__file__)) == stamp(Path(__file__))
        True
    """
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Write a file atomically; a full disk is a `ResourceError`."""
    _sweep(path.parent)
    with full_disk(path), tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder of the cache; the caller renames its file to `path`, then the folder is removed."""
    _sweep(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder)


def _sweep(folder: Path) -> None:
    """Remove temporary files of dead processes from a folder of the cache; their names begin with a dot."""
    for left in folder.glob(".*"):
        with suppress(OSError):  # somebody else is removing it
            if time.time() - left.lstat().st_mtime > ABANDONED:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
