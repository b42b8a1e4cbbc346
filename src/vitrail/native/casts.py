"""Casts between the compute dtype and the residual dtype.

PyTorch converts bf16 and fp16 into each other value by value, and a large result is new memory each time.
"""

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.build import refusal
from vitrail.native.ffi import at, call

_NATIVE = {
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.bfloat16, torch.float16),
    (torch.float16, torch.bfloat16),
}
"""Pairs of dtypes with a compiled cast."""


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to the compute dtype.

    Example:
        >>> cast(torch.tensor([1.0, 0.1], dtype=torch.float16), torch.bfloat16).tolist()
        [1.0, 0.10009765625]
    """
    return _compiled(x, dtype) if _is_compiled(x, dtype) else x.to(dtype)


def as_residual(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to the residual dtype, saturating to the finite range of fp16 as all native code does.

    Example:
        >>> as_residual(torch.tensor([1e9, -1e9, 0.1]), torch.float16).tolist()
        [65504.0, -65504.0, 0.0999755859375]
    """
    if dtype != torch.float16 or x.dtype == dtype:
        return x.to(dtype)
    if _is_compiled(x, dtype):
        return _compiled(x, dtype)
    largest = torch.finfo(dtype).max
    return x.clamp(-largest, largest).to(dtype)


def _is_compiled(x: Tensor, dtype: torch.dtype) -> bool:
    known = (x.dtype, dtype) in _NATIVE and x.device.type == "cpu" and not x.requires_grad
    return known and refusal(torch.bfloat16) is None


def _compiled(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.contiguous()
    y = empty(*x.shape, dtype=dtype)
    call("gemm", "cast", x.dtype, dtype, x=at(x), count=x.numel(), y=at(y), threads=torch.get_num_threads())
    return y
