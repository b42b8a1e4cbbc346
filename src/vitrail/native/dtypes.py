"""Residual dtype for each compute dtype, and the inverse map.

Every branch adds to the residual and rounds it. bf16 has 8 significant bits, and these roundings make three quarters of
the error of a deep model; fp16 has 11 bits in the same space. Its range ends at 65504, where native code saturates.
"""

import torch

RESIDUAL = {torch.float32: torch.float32, torch.bfloat16: torch.float16}
PRODUCTS = {residual: products for products, residual in RESIDUAL.items()}
