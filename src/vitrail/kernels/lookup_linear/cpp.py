"""Linear layer with weights of four bits in C++: a product for few rows, else the matrix and PyTorch's GEMM.

16 values fit in one AVX-512 register or two of AVX2, so a permutation looks up 16 weights at once. With few rows the
bytes of the weights are the limit, and reading an eighth of them pays; with many rows the arithmetic is.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from vitrail.kernels.lookup_linear.reference import BLOCK, ROWS
from vitrail.kernels.tracing import is_tracing
from vitrail.native import quantized
from vitrail.native.build import missing

FEW = 8
"""Largest number of rows for the product without a matrix."""


def unsupported_reason(x: Tensor, codes: Tensor, tables: Tensor, scales: Tensor, columns: int) -> str | None:
    """Return why native code cannot take these tensors, or None."""
    tensors = (x, codes, tables, scales)
    if any(each.device.type != "cpu" for each in tensors):
        return f"is for CPUs, got {', '.join(sorted({each.device.type for each in tensors}))}"
    if is_tracing(*tensors):
        return "not traceable: torch.compile, export or a functorch transform is active"
    if any(each.dtype != torch.float32 for each in (x, tables)):
        return f"needs fp32, got {x.dtype}"
    if columns % BLOCK:
        return f"needs groups of a multiple of {BLOCK} columns, got {columns}"
    return missing("lookup")


def lookup_linear(x: Tensor, codes: Tensor, tables: Tensor, scales: Tensor, columns: int) -> Tensor:
    """Return the product; see the reference. A gradient reaches `x`."""
    packed = (codes.contiguous(), tables.contiguous(), scales.float().contiguous())
    every = len(codes) if len(tables) == 1 else ROWS
    rows = x.flatten(0, -2) if x.ndim > 1 else x[None]
    if len(rows) > FEW or (torch.is_grad_enabled() and x.requires_grad):
        return linear(x, quantized.lookup_dense(*packed, every, columns)[:, : x.shape[-1]])
    rows = pad(rows, (0, codes.shape[1] * 2 - x.shape[-1])).contiguous()
    return quantized.lookup_linear(rows.detach(), *packed, every, columns).unflatten(0, x.shape[:-1] or (1,))
