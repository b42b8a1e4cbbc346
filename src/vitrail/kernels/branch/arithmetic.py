"""What the compiled branches compute in, and why they cannot."""

import torch
from torch import Tensor

from vitrail.kernels.traced import traced
from vitrail.native.library import refusal

LIBRARIES = ("rows", "window_gradient")


def computing(x: Tensor) -> torch.dtype:
    """Return the precision of products: autocast's, or else that of their input."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def refuses_branch(x: Tensor, *weights: Tensor) -> str | None:
    """Say why compiled code cannot compute a branch of these tensors."""
    if traced(x, *weights):
        return "is not to be seen by those who trace operations"
    if any(tensor.device.type != "cpu" for tensor in (x, *weights)):
        return f"needs a CPU, got {x.device.type}"
    dtype = computing(x)
    if x.dtype not in (dtype, torch.float32):
        return f"needs a residual in {dtype} or fp32, got {x.dtype}"
    if not torch.is_autocast_enabled("cpu") and any(weight.dtype != dtype for weight in weights):
        return f"needs weights of the precision of their input without autocast, got {x.dtype} for it"
    return refusal(dtype, *LIBRARIES)


def as_fp32(*weights: Tensor) -> list[Tensor]:
    """Return small weights as compiled code reads them."""
    return [weight.detach().float().contiguous() for weight in weights]
