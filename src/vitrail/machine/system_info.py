"""System information as plain values, for `vitrail doctor` and `env.json`."""

import os
import platform
import re
import shlex
import shutil
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vitrail.cache import cache_folder
from vitrail.errors import VitrailError
from vitrail.machine.host_memory import available
from vitrail.native.build import Unavailable
from vitrail.native.build import compiler as native_compiler
from vitrail.native.cpu_features import cpu_features

_QUOTAS = ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PACKAGES = ("vitrail", "torch", "torchvision", "numpy", "pillow", "safetensors")
_REQUIREMENT = re.compile(r"([\w.-]+).*;.*extra == ['\"](\w+)['\"]")


def processor() -> dict[str, Any]:
    """Name, cores, threads and instruction sets of the processor."""
    info = _read("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return {
        "name": named[1] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "instructions": list(cpu_features()),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }


def usable_cores() -> float:
    """Return the CPU time limit of this process in cores: CPU affinity and cgroup quota."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, _quota(_read(_QUOTAS[0])) or _quota(f"{_read(_QUOTAS[1])} 100000") or own)


def _quota(text: str) -> float | None:
    """Read `quota period` in microseconds; `max` or a negative quota is no limit.

    Example:
        >>> _quota("150000 100000"), _quota("max 100000"), _quota("-1 100000")
        (1.5, None, None)
    """
    words = text.split()
    if len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]) / int(words[1])


def memory() -> dict[str, int]:
    """Return the memory limit of this process and the available memory, in bytes."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [int(text) for text in map(_read, _LIMITS) if text.strip().isdigit()]
    return {"total": min([total, *limits]), "available": available(torch.device("cpu"))}


def gpus() -> list[dict[str, Any]]:
    """Name and bytes of memory of each GPU that torch can use."""
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory": gpu.total_memory} for gpu in found]


def compiler() -> str | None:
    """Return the C++ compiler of torch and of the native kernels, with its arguments, or None."""
    try:
        return shlex.join(native_compiler())
    except Unavailable:
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return {"python": platform.python_version(), **packages, "torch build": build}


def extras() -> dict[str, dict[str, str | None]]:
    """Return the packages of each optional extra of Vitrail with their version, or None if not installed."""
    found: dict[str, dict[str, str | None]] = {}
    for line in metadata.requires("vitrail") or []:
        requirement = _REQUIREMENT.match(line)
        if requirement and requirement[2] != "dev":
            found.setdefault(requirement[2], {})[requirement[1]] = _version(requirement[1])
    return found


def disks(runs: str = "runs") -> list[dict[str, Any]]:
    """Return the free bytes of the disks for runs and cached data, and of shared memory."""
    places = [("runs", _existing(Path(runs).absolute()))]
    with suppress(VitrailError):  # a missing cache folder is reported by `problems`
        places.append(("cache", cache_folder("pixels").parent))
    if Path("/dev/shm").is_dir():
        places.append(("shared memory", Path("/dev/shm")))
    return [{"what": what, "path": str(path), "free": shutil.disk_usage(path).free} for what, path in places]


def look() -> dict[str, Any]:
    """Return all of the above as plain values for JSON.

    Example:
        >>> {"processor", "memory", "gpus", "compiler"} <= set(look())
        True
    """
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions(),
        "processor": processor(),
        "memory": memory(),
        "gpus": gpus(),
        "compiler": compiler(),
        "disks": disks(),
        "extras": extras(),
        "executable": sys.executable,
    }


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
