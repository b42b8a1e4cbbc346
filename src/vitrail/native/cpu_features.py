"""What the processor can do: what a fast way to compute depends on, and `vitrail doctor` prints."""

import re
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

KNOWN = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16")
_BF16 = {"avx512_bf16", "amx_bf16"}
_AMPERE = (8, 0)  # the first compute capability with arithmetic for bf16
_CPUINFO = Path("/proc/cpuinfo")


@cache
def cpu_features() -> tuple[str, ...]:
    """Return those of the `KNOWN` instruction sets that the processor has; none where the system does not tell.

    Example:
        >>> set(cpu_features()) <= set(KNOWN)
        True
    """
    return known_features(cpu_flags())


@cache
def cpu_flags() -> str:
    """Return all that the system tells of what the processor can do, in one line; a compiler may use any of it."""
    told = ""
    with suppress(OSError):
        told = _CPUINFO.read_text()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1] if found else ""


def known_features(flags: str) -> tuple[str, ...]:
    """Find the `KNOWN` instruction sets among the flags that Linux tells of a processor.

    Example:
        >>> known_features("fpu avx2 avx512f"), known_features("asimd crc32")
        (('avx2', 'avx512f'), ('asimd',))
    """
    there = set(flags.split())
    return tuple(name for name in KNOWN if name in there)


def computes_bf16(device: torch.device) -> bool:
    """Say whether a device has arithmetic for bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    return device.type == "cpu" and not _BF16.isdisjoint(cpu_features())
