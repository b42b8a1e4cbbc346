"""Instruction sets of the CPU, for kernel selection and `vitrail doctor`."""

import re
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

KNOWN = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16")
_BF16 = {"avx512_bf16", "amx_bf16"}
_AMPERE = (8, 0)  # first compute capability with bf16 arithmetic
_CPUINFO = Path("/proc/cpuinfo")


@cache
def cpu_features() -> tuple[str, ...]:
    """Return the `KNOWN` instruction sets of this CPU; empty if the system does not list them.

    Example:
        >>> set(cpu_features()) <= set(KNOWN)
        True
    """
    return known_features(cpu_flags())


@cache
def cpu_flags() -> str:
    """Return all CPU flags of the system in one line; a compiler may use any of them."""
    return _of_system("flags|Features")


@cache
def cpu_model() -> str:
    """Return the name of the CPU; empty if the system does not report it."""
    return _of_system("model name|CPU part")


def _of_system(names: str) -> str:
    """Return the first value in the system's description of the CPU under one of some names."""
    told = ""
    with suppress(OSError):
        told = _CPUINFO.read_text()
    found = re.search(rf"^(?:{names})\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1] if found else ""


def known_features(flags: str) -> tuple[str, ...]:
    """Return the `KNOWN` instruction sets among the CPU flags of Linux.

    Example:
        >>> known_features("fpu avx2 avx512f"), known_features("asimd crc32")
        (('avx2', 'avx512f'), ('asimd',))
    """
    there = set(flags.split())
    return tuple(name for name in KNOWN if name in there)


def computes_bf16(device: torch.device) -> bool:
    """Return whether a device has bf16 arithmetic."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    return device.type == "cpu" and not _BF16.isdisjoint(cpu_features())
