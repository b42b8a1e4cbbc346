"""Products with packed weights: a linear layer with what stands beside it, and an MLP in one go.

They compute without gradients, on a CPU, in fp32 or bf16, and add up in fp32. What they are added to at the end of a
branch, and what they begin with, is stored as `residual.RESIDUAL` has it.
"""

import ctypes
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.dtypes import PRODUCTS, RESIDUAL
from vitrail.native.ffi import DataPointers, at, function
from vitrail.native.norms import lanes

PLAIN, GELU, ADD = 0, 1, 2
WORD = 4  # bytes of a KPack: what one k-step reads of an output's weights


@dataclass(frozen=True)
class Packed(ABC):
    """`x W^T + b` ready for a product: weights in panels (native/gemm.h), the bias in fp32 and whole vectors."""

    panels: Tensor
    bias: Tensor
    inputs: int
    outputs: int

    layers: ClassVar[str]
    """The library with the layers of such weights."""
    attention: ClassVar[str]
    """The library with their attention branch."""

    @property
    @abstractmethod
    def pointers(self) -> DataPointers:
        """Where the weights lie, in the order of compiled code."""

    def operands(self) -> tuple[ctypes.c_void_p, ...]:
        """Return the weights as compiled code takes them."""
        return self.pointers.addresses

    @abstractmethod
    def takes(self, x: Tensor, norm_eps: float | None) -> bool:
        """Say whether these weights are for such rows, with or without a norm before."""


@dataclass(frozen=True)
class PackedLinear(Packed):
    """Weights in the precision of the rows. Build it with `pack_linear`."""

    layers, attention = "gemm", "attention"

    @cached_property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.panels.dtype

    @cached_property
    def pointers(self) -> DataPointers:
        """Panels and bias."""
        return DataPointers(self.panels, self.bias)

    def takes(self, x: Tensor, norm_eps: float | None) -> bool:
        """Compare width and precision."""
        return x.shape[-1] == self.inputs and x.dtype in (self.dtype, RESIDUAL[self.dtype])


def pack_linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> PackedLinear:
    """Lay weights `(out, in)` out as the product reads them.

    Args:
        weight: fp32 weights; the number of inputs must be even in bf16.
        bias: fp32, or None.
        dtype: precision to compute in.
    """
    outputs, inputs = weight.shape
    rows = weight.detach().float().to(dtype).contiguous()
    width = inputs * rows.itemsize
    assert width % WORD == 0, (inputs, dtype)
    panels = torch.empty((outputs + -outputs % library("gemm").vitrail_lanes()) * inputs, dtype=dtype, device="cpu")
    library("gemm").vitrail_pack(at(rows), outputs, width // WORD, at(panels), torch.get_num_threads())
    return PackedLinear(panels, pad_bias(bias, outputs), inputs, outputs)


def pad_bias(bias: Tensor | None, outputs: int) -> Tensor:
    """Lay a bias out in fp32 and whole vectors; none is zeros."""
    return lanes(torch.zeros(outputs, dtype=torch.float32, device="cpu") if bias is None else bias.detach().float())


def linear(
    x: Tensor,
    packed: Packed,
    finish: int = PLAIN,
    add: Tensor | None = None,
    norm_eps: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return `finish(norm(x) W^T + b)`.

    Args:
        x: `(*, in)`, in the precision of products or as the residual.
        packed: the weights.
        finish: `PLAIN`, `GELU`, or `ADD` to add `add`.
        add: `(*, out)`, the residual, for `ADD`.
        norm_eps: with a number, each row is brought to mean 0 and variance 1 before.
        dtype: how the answer is stored: in the precision of products, or, but for `GELU`, as the residual. Without it
            as `add` is, or else x.
    """
    x = x.contiguous()
    products = PRODUCTS.get(x.dtype, x.dtype)
    stored = dtype or (x.dtype if add is None else add.dtype)
    y = empty(*x.shape[:-1], packed.outputs, dtype=stored)
    assert packed.takes(x, norm_eps), (x.dtype, x.shape, packed.inputs, norm_eps)
    assert stored == (products if finish == GELU else RESIDUAL[products]) or (finish == PLAIN and stored == products)
    add = _like(add, y)
    function(packed.layers, "linear", x.dtype, stored)(
        at(x),
        ctypes.c_long(x.numel() // packed.inputs),
        packed.inputs,
        *packed.operands(),
        packed.outputs,
        at(y),
        at(add),
        finish,
        _eps(norm_eps),
        torch.get_num_threads(),
    )
    return y


def mlp(x: Tensor, first: Packed, second: Packed, add: Tensor | None = None, norm_eps: float | None = None) -> Tensor:
    """Return `add + gelu(norm(x) W1^T + b1) W2^T + b2`; what lies between the products stays in the cache.

    x, `add` and the answer are stored as the residual.
    """
    x = x.contiguous()
    rows = x.numel() // first.inputs
    if rows < 64 * torch.get_num_threads():  # too few rows to share out: share out the outputs
        between = linear(x, first, GELU, norm_eps=norm_eps, dtype=PRODUCTS[x.dtype])
        return linear(between, second, PLAIN if add is None else ADD, add, dtype=x.dtype)
    y = empty(*x.shape[:-1], second.outputs, dtype=x.dtype)
    assert first.takes(x, norm_eps) and type(first) is type(second) and first.outputs == second.inputs
    assert first.panels.dtype == second.panels.dtype
    add = _like(add, y)
    function(first.layers, "mlp", PRODUCTS[x.dtype])(
        at(x),
        ctypes.c_long(rows),
        first.inputs,
        *first.operands(),
        first.outputs,
        *second.operands(),
        second.outputs,
        at(y),
        at(add),
        _eps(norm_eps),
        torch.get_num_threads(),
    )
    return y


def _like(x: Tensor | None, y: Tensor) -> Tensor | None:
    if x is None:
        return None
    assert x.shape == y.shape, (x.shape, y.shape)
    return x.to(y.dtype).contiguous()


def _eps(norm_eps: float | None) -> ctypes.c_float:
    """Return what is added to the variance; below zero there is no norm (native/gemm_layer.h)."""
    return ctypes.c_float(-1.0 if norm_eps is None else norm_eps)
