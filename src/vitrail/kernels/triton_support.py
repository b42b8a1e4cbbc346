"""Common code of the Triton backends: supported devices and tile sizes.

Triton itself is imported when a kernel first runs.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
OLDEST = (8, 0)  # Ampere: products in bf16, and in fp32 from three products in TF32


def refusal(x: Tensor) -> str | None:
    """Return why no Triton kernel can run on a tensor, or None where it can."""
    if x.device.type != "cuda":
        return f"needs a CUDA device, got {x.device.type}"
    if x.dtype not in PRECISIONS:
        return f"needs fp32, bf16 or fp16, got {x.dtype}"
    if torch.compiler.is_compiling():
        return "compilers and exporters get plain operators"
    return _machine_refusal(x.device.index or 0)


@cache
def _machine_refusal(device: int) -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    if torch.version.hip is not None:
        return "written for NVIDIA devices"
    has = torch.cuda.get_device_capability(device)
    return None if has >= OLDEST else f"needs compute capability {OLDEST[0]}.{OLDEST[1]}, got {has[0]}.{has[1]}"


def tile_of(size: int) -> int:
    """Return the side of the tile that holds `size` numbers: a power of two that a matrix unit takes.

    Example:
        >>> tile_of(49), tile_of(8)
        (64, 16)
    """
    return max(16, 1 << (size - 1).bit_length())


def share(pieces: int, others: int, device: torch.device) -> int:
    """Return how many of `pieces` one program takes, so that all programs together keep the device busy.

    Args:
        pieces: how many there are.
        others: programs that each share of them is multiplied by.
        device: where they run.
    """
    wanted = 16 * _processors(device)
    return max(1, min(pieces, pieces * others // wanted))


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
