"""GEMMs with packed weights: a linear layer fused with its norm and epilogue, and a fused MLP.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation. Input and output of a residual branch have the dtype of
`dtypes.RESIDUAL`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import silu

from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.dtypes import PRODUCTS, RESIDUAL
from vitrail.native.ffi import Operand, at, call
from vitrail.native.norms import LaneNorm, lanes
from vitrail.native.prototypes import Arguments

PLAIN, GELU, ADD, SQUARED_RELU, QUICK_GELU, SILU_GATE, TANH_GELU = 0, 1, 2, 3, 4, 5, 6
ACTIVATIONS = (GELU, SQUARED_RELU, QUICK_GELU, TANH_GELU)
"""Epilogues within a branch: the result has the compute dtype."""
WORD = 4  # bytes of a KPack: the weights of one output in one k-step


@dataclass(frozen=True)
class Packed(ABC):
    """Packed linear layer `x W^T + b`: weights in panels (native/gemm.h), bias in fp32, padded to whole vectors."""

    panels: Tensor
    bias: Tensor
    inputs: int
    outputs: int

    layers: ClassVar[str]
    """Library with the linear layers of these weights."""
    attention: ClassVar[str]
    """Library with their attention branch."""

    @property
    @abstractmethod
    def operand(self) -> Operand:
        """Argument struct of the weights."""

    @property
    def args(self) -> Arguments:
        """The struct itself, a field of the arguments of native functions."""
        return self.operand.args

    @abstractmethod
    def takes(self, x: Tensor, norm_eps: float | None) -> bool:
        """Return whether the weights fit these rows, with or without a norm before."""


@dataclass(frozen=True)
class PackedLinear(Packed):
    """Weights in the dtype of the rows. Build it with `pack_linear`."""

    layers, attention = "gemm", "attention"

    @cached_property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.panels.dtype

    @cached_property
    def operand(self) -> Operand:
        """Panels, bias and sizes."""
        sizes = {"inputs": self.inputs, "outputs": self.outputs}
        return Operand("WeightsArgs", panels=self.panels, bias=self.bias, **sizes, step=None, sums=None, factors=None)

    def takes(self, x: Tensor, norm_eps: float | None) -> bool:
        """Compare width and dtype."""
        return x.shape[-1] == self.inputs and x.dtype in (self.dtype, RESIDUAL[self.dtype])


def pack_linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> PackedLinear:
    """Pack weights `(out, in)` for the GEMM.

    Args:
        weight: fp32 weights; the number of inputs must be even in bf16.
        bias: fp32, or None.
        dtype: compute dtype.
    """
    outputs, inputs = weight.shape
    rows = weight.detach().float().to(dtype).contiguous()
    width = inputs * rows.itemsize
    assert width % WORD == 0, (inputs, dtype)
    panels = torch.empty((outputs + -outputs % library("gemm").vitrail_lanes()) * inputs, dtype=dtype, device="cpu")
    library("gemm").vitrail_pack(at(rows), outputs, width // WORD, at(panels), torch.get_num_threads())
    return PackedLinear(panels, pad_bias(bias, outputs), inputs, outputs)


def pad_bias(bias: Tensor | None, outputs: int) -> Tensor:
    """Pad a bias to whole vectors in fp32; zeros if None."""
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
        x: `(*, in)`, in the compute dtype or the residual dtype.
        packed: the weights.
        finish: epilogue: `PLAIN`, one of `ACTIVATIONS`, or `ADD` to add `add`.
        add: `(*, out)`, the residual, for `ADD`.
        norm_eps: epsilon of a norm over each row (mean 0, variance 1) before the GEMM; no norm if None.
        dtype: output dtype: the compute dtype, or, without activation, the residual dtype; default that of `add`, else
            of x.
    """
    x = x.contiguous()
    products = PRODUCTS.get(x.dtype, x.dtype)
    stored = dtype or (x.dtype if add is None else add.dtype)
    y = empty(*x.shape[:-1], packed.outputs, dtype=stored)
    assert packed.takes(x, norm_eps), (x.dtype, x.shape, packed.inputs, norm_eps)
    own = products if finish in ACTIVATIONS else RESIDUAL[products]
    assert stored == own or (finish == PLAIN and stored == products)
    add = _like(add, y)
    call(
        *(packed.layers, "linear", x.dtype, stored),
        x=at(x),
        rows=x.numel() // packed.inputs,
        weights=packed.args,
        y=at(y),
        add=at(add),
        epilogue=finish,
        eps=eps_or_none(norm_eps),
        threads=torch.get_num_threads(),
    )
    return y


def mlp(
    x: Tensor,
    first: Packed,
    second: Packed,
    add: Tensor | None = None,
    norm_eps: float | None = None,
    activation: int = GELU,
    inner_eps: float | None = None,
) -> Tensor:
    """Return `add + norm2(act(norm(x) W1^T + b1)) W2^T + b2`; hidden activations stay in the cache.

    Args:
        x: `(*, in)`, in the residual dtype, as are `add` and the result.
        first: weights W1; for `SILU_GATE` those of the gate a, then those of the value b.
        second: weights W2.
        add: the residual, or None.
        norm_eps: epsilon of a norm over each row of x (mean 0, variance 1); no norm if None.
        activation: one of `ACTIVATIONS`, or `SILU_GATE` for `silu(a) b`.
        inner_eps: epsilon of a norm of the activations; no norm if None.
    """
    x, gated = x.contiguous(), activation == SILU_GATE
    rows = x.numel() // first.inputs
    if rows < 64 * torch.get_num_threads():  # too few rows to parallelise over: split the outputs
        between = linear(x, first, PLAIN if gated else activation, norm_eps=norm_eps, dtype=PRODUCTS[x.dtype])
        if gated:
            gate, value = between.float().chunk(2, dim=-1)
            between = (silu(gate) * value).to(between.dtype)
        return linear(between, second, PLAIN if add is None else ADD, add, inner_eps, dtype=x.dtype)
    y = empty(*x.shape[:-1], second.outputs, dtype=x.dtype)
    assert first.takes(x, norm_eps) and type(first) is type(second)
    assert first.outputs == (2 * second.inputs if gated else second.inputs), (first.outputs, second.inputs)
    assert first.panels.dtype == second.panels.dtype
    add = _like(add, y)
    call(
        *(first.layers, "mlp", PRODUCTS[x.dtype]),
        x=at(x),
        rows=rows,
        first=first.args,
        second=second.args,
        y=at(y),
        add=at(add),
        activation=activation,
        eps=eps_or_none(norm_eps),
        inner_eps=eps_or_none(inner_eps),
        threads=torch.get_num_threads(),
    )
    return y


def post_norm_mlp(x: Tensor, first: Packed, second: Packed, norm: LaneNorm) -> Tensor:
    """Return `x + norm(gelu(x W1^T + b1) W2^T + b2)`; hidden activations stay in the cache.

    x and the result have the residual dtype; rows of the result are normalised in fp32.
    """
    x = x.contiguous()
    assert first.takes(x, None) and type(first) is type(second) and first.outputs == second.inputs
    assert first.panels.dtype == second.panels.dtype and second.outputs == first.inputs
    y = empty(*x.shape, dtype=x.dtype)
    call(
        *(first.layers, "post_norm_mlp", PRODUCTS[x.dtype]),
        x=at(x),
        rows=x.numel() // first.inputs,
        first=first.args,
        second=second.args,
        norm=norm.operand.args,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def _like(x: Tensor | None, y: Tensor) -> Tensor | None:
    if x is None:
        return None
    assert x.shape == y.shape, (x.shape, y.shape)
    return x.to(y.dtype).contiguous()


def eps_or_none(norm_eps: float | None) -> float:
    """Return the epsilon; a negative value disables the norm (native/gemm_layer.h)."""
    return -1.0 if norm_eps is None else norm_eps
