"""One run folder, one run: a lock that dies with its owner.

The kernel holds the lock (`flock`) and drops it when the process ends in any way, so a killed run leaves nothing to
clean up. The file only tells a human who holds it.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from vitrail.errors import ResourceError

_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` inside the block.

    Raises:
        ResourceError: another process holds it.
    """
    _let_go_in_children()
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "an unknown process"
            raise ResourceError(
                f"{folder} is in use by {owner}.\n"
                "One run folder takes one run at a time: wait for it, stop it, or choose another --out."
            ) from error
        _held.add(handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


@cache
def _let_go_in_children() -> None:
    """Let forked children close the lock: a loading worker lives a few seconds longer than a killed run."""
    os.register_at_fork(after_in_child=lambda: [os.close(_held.pop()) for _ in list(_held)])
