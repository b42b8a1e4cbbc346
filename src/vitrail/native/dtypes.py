"""Residual dtype for each compute dtype, and the inverse map.

Every branch adds to the residual and rounds it. bf16 has 8 significant bits, and these roundings make three quarters of
the error of a deep model; fp16 has 11 bits in the same space. Its range ends at 65504, where native code saturates.
"""

import torch
from torch import Tensor

RESIDUAL = {torch.float32: torch.float32, torch.bfloat16: torch.float16}
PRODUCTS = {residual: products for products, residual in RESIDUAL.items()}


def as_residual(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to the residual dtype, saturating to its finite range as native code does.

    Example:
        >>> as_residual(torch.tensor([1e9, -1e9, 0.1]), torch.float16).tolist()
        [65504.0, -65504.0, 0.0999755859375]
    """
    largest = torch.finfo(dtype).max
    return x.clamp(-largest, largest).to(dtype)
