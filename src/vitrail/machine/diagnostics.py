"""Diagnostics: problems of this machine that affect training, each with a fix."""

import importlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vitrail.cache import cache_folder
from vitrail.errors import VitrailError

_GIB = 1 << 30


class Problem(NamedTuple):
    """A problem and its fix."""

    what: str
    cure: str


def problems(facts: dict[str, Any]) -> list[Problem]:
    """Return the problems in the facts of `vitrail.machine.system_info.look`, and in `speed` if it was measured.

    Example:
        >>> threads = {"processor": {"threads": 8, "usable_cores": 2.0}}
        >>> [problem.cure for problem in _threads(threads)]
        ['Set OMP_NUM_THREADS=2.']
    """
    return [problem for check in _CHECKS for problem in check(facts)]


def _threads(facts: dict[str, Any]) -> Iterator[Problem]:
    threads, cores = facts["processor"]["threads"], max(1, int(facts["processor"]["usable_cores"]))
    if threads > cores:
        yield Problem(f"torch would start {threads} threads on {cores} cores.", f"Set OMP_NUM_THREADS={cores}.")


def _memory(facts: dict[str, Any]) -> Iterator[Problem]:
    free = facts["memory"]["available"]
    if free < 2 * _GIB:
        yield Problem(f"Only {free / _GIB:.1f} GiB of memory are free.", "Close programs, or train with a small batch.")


def _disks(facts: dict[str, Any]) -> Iterator[Problem]:
    for disk in facts["disks"]:
        shared = disk["what"] == "shared memory"
        if disk["free"] < (_GIB // 16 if shared else 2 * _GIB):
            cure = "Train with workers=0, or give the container --shm-size 1g." if shared else "Free some space."
            yield Problem(f"Only {disk['free'] / _GIB:.2f} GiB free for {disk['what']} at {disk['path']}.", cure)


def _cache(facts: dict[str, Any]) -> Iterator[Problem]:
    try:
        cache_folder("pixels")
    except VitrailError as error:
        what, _, cure = str(error).partition("\n")
        yield Problem(what, cure)


def _driver(facts: dict[str, Any]) -> Iterator[Problem]:
    if facts["gpus"] or not shutil.which("nvidia-smi"):
        return
    if facts["versions"]["torch build"] == "CPU":
        yield Problem("There is a GPU driver, but this torch is built for CPUs.", "Install a CUDA build of torch.")
    else:
        yield Problem("There is a GPU driver, but torch sees no GPU.", "Run nvidia-smi; the driver may be too old.")


def _compiler(facts: dict[str, Any]) -> Iterator[Problem]:
    if facts["compiler"] is None:
        yield Problem(
            "No C++ compiler was found; torch.compile needs one on a CPU.", "Install g++, or name one in CXX."
        )


def _torchvision(facts: dict[str, Any]) -> Iterator[Problem]:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:  # a build for another version of torch raises either
        yield Problem(f"torchvision does not load: {error}.", "Install the torchvision that belongs to this torch.")


def _slow_bf16(facts: dict[str, Any]) -> Iterator[Problem]:
    for device in ("cpu", "cuda"):
        fp32, bf16 = (facts.get("speed", {}).get(f"{device} {dtype}", 0) for dtype in ("float32", "bfloat16"))
        if bf16 < fp32:
            yield Problem(f"bf16 is slower than fp32 on this {device}.", f"On the {device}, train with precision=fp32.")


_CHECKS: tuple[Callable[[dict[str, Any]], Iterator[Problem]], ...] = (
    _threads,
    _memory,
    _disks,
    _cache,
    _driver,
    _compiler,
    _torchvision,
    _slow_bf16,
)
