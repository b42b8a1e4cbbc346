"""Packing of weights written with tensors: the C++ of gemm.cpp and int8.cpp must equal it bit for bit."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.build import library


def panels(weight: Tensor, step: int) -> Tensor:
    """Pack weights `(out, in)`: panels of outputs, and in each panel `step` inputs of every output at a time."""
    lane, panel = library("gemm").vitrail_lanes(), library("gemm").vitrail_panel()
    rows = pad(weight, (0, -weight.shape[1] % step, 0, -len(weight) % lane))
    # of each panel (wide, in / step, step) -> (in / step, wide, step)
    return torch.cat([part.unflatten(1, (-1, step)).transpose(0, 1).flatten() for part in rows.split(panel)])


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights `(out, in)` to int8: numbers and the step of each output, its largest size / 127."""
    step = weight.abs().amax(dim=1) / 127
    numbers = (weight / step.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    return numbers.clamp(-127, 127).to(torch.int8), step
