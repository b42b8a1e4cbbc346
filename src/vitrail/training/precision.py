"""The arithmetic of a run: bf16 where the hardware computes in it, else fp32.

Where bf16 is only emulated it is slower than fp32, so `auto` does not choose it there. A run keeps the arithmetic that
it was begun with, wherever it goes on: another one would quietly make it another run.
"""

import torch

from vitrail.native.cpu_features import computes_bf16
from vitrail.training.distributed import SingleProcess


def choose_precision(asked: str, world: SingleProcess) -> str:
    """Return `fp32` or `bf16`: what was asked for, or for `auto` bf16 where the devices of all processes compute in it.

    Example:
        >>> choose_precision("fp32", SingleProcess(torch.device("cpu")))
        'fp32'
    """
    if asked != "auto":
        return asked
    lacking = world.largest([float(not computes_bf16(world.device))])[0]
    return "fp32" if lacking else "bf16"


def slowness(precision: str, device: torch.device) -> str | None:
    """Say that a device emulates the arithmetic of a run, and what to do about it; None where it does not."""
    if precision == "fp32" or computes_bf16(device):
        return None
    return (
        f"warning: the run computes in bf16, which this {device.type.upper()} only emulates, slowly. "
        "A run keeps its arithmetic; a new one with precision=fp32 is faster here (--weights takes the weights along)."
    )
