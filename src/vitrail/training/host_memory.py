"""How much memory work takes, measured, how much there is, and who keeps what a step has freed."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names that glibc's malloc.h gives to what `mallopt` sets
_ENDLESS = 2**31 - 1
_LARGE = 128 * 1024  # from here on glibc, as it starts, asks the system for each block
_CGROUPS = (  # limit and use, version 2 and version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def resident() -> int:
    """Return the bytes of memory that this process holds now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _highest()


def available(device: torch.device) -> int:
    """Return the bytes that this process could still take on a device.

    On a CPU the smallest of what the system calls available and what the control group leaves; on a GPU the free memory
    and what torch already holds without using it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    rooms = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if sys.platform != "darwin" else [8 << 30]
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        rooms = [int(lines["MemAvailable"].split()[0]) * 1024]
    for limit, used in _CGROUPS:
        with suppress(OSError, ValueError):
            rooms.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return min(rooms)


def capacity(device: torch.device) -> int:
    """Return the bytes that this process may come to hold on a device: what it holds and what is left."""
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else resident()
    return held + available(device)


def peak_of(work: Callable[[], object], device: torch.device) -> int:
    """Run `work` and return the most bytes that this process held meanwhile.

    On a CPU this reads the high-water mark of resident memory, which Linux lets a process reset; elsewhere the mark
    only rises, so measure the small before the large.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    work()
    return _highest()


def disable_malloc_trim() -> bool:
    """Let this process keep what it frees for what it allocates next; say whether the C library can be told so.

    glibc gives large blocks back to the system at once, and a step of training asks for the same blocks again: a
    quarter of a step on a CPU was spent on the system clearing pages. In return blocks leave holes between them, into
    which the same blocks do not always fit again: after some steps a process holds 1.2 to 1.5 times what is in use
    (docs/log.md).
    """
    return _tell((_MMAP_THRESHOLD, _ENDLESS), (_TRIM_THRESHOLD, _ENDLESS))


@contextmanager
def trim_on_free() -> Iterator[None]:
    """Let this process hold what is in use and no more inside the block; behind it, what is freed is kept.

    So memory can be measured: what holes add depends on all that was allocated before, and what is in use does not.
    Other C libraries than glibc are left as they are.
    """
    if _tell((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        yield
    finally:
        disable_malloc_trim()


def _tell(*settings: tuple[int, int]) -> bool:
    """Give glibc's allocator settings; say whether it took them."""
    try:
        tell = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(tell(what, value) for what, value in settings)


def _highest() -> int:
    """Return the high-water mark of resident memory."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
