"""File lock of a run folder, for one run at a time.

The kernel releases the lock when the process ends in any way, so a killed run leaves nothing to clean up. The file
remains; it only names the current or last owner, for people.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vitrail.errors import ResourceError

LOCK = ".lock"
_NAME_AT = 1  # Windows locks the first byte, which then no other process can read


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` inside the block. Forked children (loading workers) do not inherit it.

    Raises:
        ResourceError: another process holds it.
    """
    lock = FileLock(folder / LOCK, blocking=False, preserve_lock_file=True, on_acquired=_sign)
    try:
        lock.acquire()
    except Timeout as error:
        raise ResourceError(
            f"{folder} is in use by {_owner(folder)}.\n"
            "One run folder takes one run at a time: wait for it, stop it, or choose another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _sign(handle: int) -> None:
    """Write the owner of the lock."""
    os.ftruncate(handle, _NAME_AT)
    os.lseek(handle, _NAME_AT, os.SEEK_SET)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _owner(folder: Path) -> str:
    """Read the owner of the lock."""
    with open(folder / LOCK, "rb", buffering=0) as file:
        file.seek(_NAME_AT)
        return file.read(200).decode(errors="replace").strip() or "another process"
