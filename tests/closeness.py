"""Numbers drawn in a precision, how far an answer is off, and whether threads change it."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Answer = TypeVar("Answer")

# bf16 keeps 8 bits, half of 2^-8 for each rounding, and fp16 three more.
CLOSE = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 7.5e-4}


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Draw normal numbers that the precision holds exactly."""
    return torch.randn(*shape).to(dtype)


def off(got: Tensor, want: Tensor) -> float:
    """Return the length of the difference as a share of the length wanted."""
    return ((got.double() - want).norm() / want.norm()).item()


def steps_off(got: Tensor, want: Tensor) -> float:
    """Return the same, in units of the rounding of `got`'s dtype."""
    return off(got, want) / CLOSE[got.dtype]


def with_threads(run: Callable[[], Answer], threads: int = 2) -> Answer:
    """Return the result of `run` on some threads; the others run on one."""
    torch.set_num_threads(threads)
    try:
        return run()
    finally:
        torch.set_num_threads(1)
