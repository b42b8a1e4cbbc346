"""Compute precision of a run: bf16 if the hardware supports it, else fp32.

Emulated bf16 is slower than fp32, so `auto` does not choose it. A resumed run keeps its precision on any machine:
another one would silently change the result.
"""

import torch

from vitrail.native.cpu_features import computes_bf16
from vitrail.training.distributed import SingleProcess


def choose_precision(asked: str, world: SingleProcess) -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 if the devices of all processes support it in hardware.

    Example:
        >>> choose_precision("fp32", SingleProcess(torch.device("cpu")))
        'fp32'
    """
    if asked != "auto":
        return asked
    lacking = world.largest([float(not computes_bf16(world.device))])[0]
    return "fp32" if lacking else "bf16"


def slowness(precision: str, device: torch.device) -> str | None:
    """Return a warning with its remedy if a device emulates the precision of a run, else None.

    Example:
        >>> slowness("fp32", torch.device("cpu")) is None
        True
    """
    if precision == "fp32" or computes_bf16(device):
        return None
    return (
        f"warning: the run computes in bf16, which this {device.type.upper()} only emulates, slowly. "
        "A run keeps its arithmetic; a new one with precision=fp32 is faster here (--weights takes the weights along)."
    )
