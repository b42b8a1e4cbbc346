"""Process memory: peak usage, available memory, and trimming of malloc."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of `mallopt`, from glibc's malloc.h
_ENDLESS = 2**31 - 1
_LARGE = 128 * 1024  # initial threshold of glibc for an `mmap` per block
_CGROUPS = (  # limit and usage, version 2 and version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _highest()


def available(device: torch.device) -> int:
    """Return the memory that this process can still allocate on a device, in bytes.

    On a CPU the minimum of the system's available memory and the rest of the control group's limit; on a GPU the free
    memory plus the unused memory of torch's caching allocator.
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
    """Return the memory in use by this process on a device plus the available memory, in bytes."""
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else resident()
    return held + available(device)


def peak_of(work: Callable[[], object], device: torch.device) -> int:
    """Run `work` and return the peak memory of this process meanwhile, in bytes.

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
    """Keep freed memory in this process for later allocations; return whether the C library supports it.

    glibc returns large blocks to the system at once, and a training step allocates the same blocks again: a quarter of
    a step on a CPU was spent in the kernel clearing pages. The cost is fragmentation: after some steps a process holds
    1.2 to 1.5 times the memory in use (docs/log.md).
    """
    return _tell((_MMAP_THRESHOLD, _ENDLESS), (_TRIM_THRESHOLD, _ENDLESS))


@contextmanager
def trim_on_free() -> Iterator[None]:
    """Return freed memory to the system inside the block; after it, freed memory is kept.

    For measurements: fragmentation depends on all earlier allocations, memory in use does not. No effect with other C
    libraries than glibc.
    """
    if _tell((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        yield
    finally:
        disable_malloc_trim()


def _tell(*settings: tuple[int, int]) -> bool:
    """Set parameters of glibc's allocator; return whether it accepted them."""
    try:
        tell = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(tell(what, value) for what, value in settings)


def _highest() -> int:
    """Return the high-water mark of resident memory in bytes."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
