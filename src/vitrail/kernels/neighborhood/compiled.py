"""Neighborhood attention in C++ on plain pointers: for CPUs, where nothing asks for a gradient or for a graph."""

from functools import cache

import torch
from torch import Tensor

from vitrail.grid import Grid
from vitrail.kernels.neighborhood.window import check_length
from vitrail.kernels.traced import traced
from vitrail.native.library import Unavailable, library, refusal
from vitrail.native.neighborhood import attend_neighbors, meeting, run_bias
from vitrail.shapes import HeadMap


def refuses(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int) -> str | None:
    """Say why compiled code cannot take these tensors."""
    tensors = (q, k, v, bias)
    if any(x.device.type != "cpu" for x in tensors):
        return f"is for CPUs, got {', '.join(sorted({x.device.type for x in tensors}))}"
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return "computes no gradients"
    if traced(*tensors):
        return "is no operator of PyTorch, so nothing can trace or transform it"
    if {k.dtype, v.dtype} != {q.dtype}:
        return f"needs one precision, got {q.dtype}, {k.dtype} and {v.dtype}"
    if q.dtype == torch.bfloat16 and q.shape[-1] % 2:
        return f"reads bf16 in pairs, got heads of width {q.shape[-1]}"
    return _missing(q.dtype)


def attend(q: HeadMap, k: HeadMap, v: HeadMap, bias: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Compute neighborhood attention; the arguments are those of the reference."""
    check_length(q.shape[1], kernel_size, dilation)
    check_length(q.shape[2], kernel_size, dilation)
    cut = meeting(Grid(*q.shape[1:3]), kernel_size, dilation)
    return attend_neighbors(q, k, v, run_bias(bias, cut), cut)


@cache
def _missing(dtype: torch.dtype) -> str | None:
    """Say what is missing on this machine; the first question builds."""
    reason = refusal(dtype)
    if reason is None:
        try:
            library("neighborhood")
        except Unavailable as error:
            reason = str(error)
    return reason
