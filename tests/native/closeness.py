"""Numbers drawn in a precision, and how far an answer is off in units of what the precision can say."""

import torch
from torch import Tensor

STEP = {torch.float32: 2e-6, torch.bfloat16: 6e-3}  # bf16 keeps 8 bits: half of 2^-8 for each rounding


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Draw normal numbers that the precision holds exactly."""
    return torch.randn(*shape).to(dtype)


def steps_off(got: Tensor, want: Tensor) -> float:
    """Return the length of the difference as a share of the length wanted, in steps of the precision of `got`."""
    return ((got.double() - want).norm() / want.norm()).item() / STEP[got.dtype]


def with_two_threads(run):
    """Return what `run` answers on two threads."""
    torch.set_num_threads(2)
    try:
        return run()
    finally:
        torch.set_num_threads(1)
