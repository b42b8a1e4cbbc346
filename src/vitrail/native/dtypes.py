"""How what is handed from block to block is stored, for each precision of products, and the other way round.

Every branch adds to it and rounds it anew. bf16 keeps 8 digits of that, and three quarters of a deep model's error are
made there; fp16 keeps 11 in as many bytes, and ends at 65504, where compiled code stops short of infinity.
"""

import torch
from torch import Tensor

RESIDUAL = {torch.float32: torch.float32, torch.bfloat16: torch.float16}
PRODUCTS = {residual: products for products, residual in RESIDUAL.items()}


def as_residual(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Store numbers as the residual; what is too large for it becomes the largest, as in compiled code.

    Example:
        >>> as_residual(torch.tensor([1e9, -1e9, 0.1]), torch.float16).tolist()
        [65504.0, -65504.0, 0.0999755859375]
    """
    largest = torch.finfo(dtype).max
    return x.clamp(-largest, largest).to(dtype)
