"""Fused residual branches for training, forward and backward: the layers around attention, and the whole MLP.

On a CPU. The residual is in fp32 or bf16, inputs and outputs of GEMMs in the same dtype or in bf16; weights, statistics
and accumulators are in fp32. Sums over rows have the same order for any number of threads. Intermediates of a branch
stay in the cache.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.native.allocator import fp32
from vitrail.native.build import SUFFIXES, library
from vitrail.native.ffi import at, invoke, nested
from vitrail.native.prototypes import Arguments


class Normed(NamedTuple):
    """A LayerNorm and the activations saved for its backward pass.

    Args:
        weight: `(C,)`, fp32.
        bias: `(C,)`, fp32.
        z: `(T, C)`, normalised rows, in the compute dtype.
        scale: `(T,)`, reciprocal standard deviation of each row.
    """

    weight: Tensor
    bias: Tensor
    z: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype, learn: bool) -> "Normed":
        """Allocate the saved activations for rows `(T, C)`, or none if there is no gradient."""
        rows = len(x) if learn else 0
        return cls(weight, bias, torch.empty(rows, x.shape[1], dtype=dtype), fp32(rows))

    def args(self) -> Arguments:
        """Return the argument struct; z and scale are null if they are not allocated."""
        z, scale = (self.z, self.scale) if len(self.z) else (None, None)
        return nested("SavedNormArgs", weight=self.weight, bias=self.bias, z=z, scale=scale)


def norm_linear(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, layer: Tensor, offset: Tensor, dtype: torch.dtype, learn: bool
) -> tuple[Tensor, Normed]:
    """Return `norm(x) layer^T + offset` of rows `(T, C)` in `dtype`, and the norm.

    Args:
        x: the residual.
        weight: weight of the norm, fp32.
        bias: bias of the norm, fp32.
        eps: added to the variance.
        layer: weights `(out, C)`.
        offset: bias `(out,)`, fp32.
        dtype: compute dtype.
        learn: whether to save activations for the backward pass.
    """
    normed = Normed.of(x, weight, bias, dtype, learn)
    y, packed = torch.empty(len(x), len(layer), dtype=dtype), pack(layer, dtype)
    invoke(
        _function("norm_linear", x.dtype, dtype),
        x=at(x),
        rows=len(x),
        inputs=x.shape[1],
        norm=normed.args(),
        eps=eps,
        packed=at(packed),
        bias=at(offset),
        outputs=len(layer),
        y=at(y),
        threads=_threads(),
    )
    return y, normed


def norm_linear_backward(
    grad_y: Tensor, layer: Tensor, normed: Normed, residual: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """Return the gradients of `norm_linear`: of x (added to `residual`), layer, offset, weight and bias.

    The gradient of the layer is None if it is not `wanted`.
    """
    depth = layer.shape[1]
    grad_x, grad_layer, grad_offset = torch.empty_like(residual), _room_for(layer, wanted), fp32(len(layer))
    grad_weight, grad_bias = fp32(depth), fp32(depth)
    transposed = pack(layer, grad_y.dtype, transposed=True)
    invoke(
        _function("norm_linear_backward", residual.dtype, grad_y.dtype),
        grad_y=at(grad_y),
        rows=len(grad_y),
        outputs=grad_y.shape[1],
        inputs=depth,
        transposed=at(transposed),
        norm=normed.args(),
        residual=at(residual),
        grad_x=at(grad_x),
        grad_weight=at(grad_layer),
        grad_bias=at(grad_offset),
        grad_scale=at(grad_weight),
        grad_shift=at(grad_bias),
        threads=_threads(),
    )
    return grad_x, grad_layer, grad_offset, grad_weight, grad_bias


def linear_residual(x: Tensor, layer: Tensor, offset: Tensor, keep: Tensor | None, residual: Tensor) -> Tensor:
    """Return `residual + keep * (x layer^T + offset)`; `keep` is the drop path scale of each sample, or None."""
    y, packed = torch.empty_like(residual), pack(layer, x.dtype)
    invoke(
        _function("linear_residual", residual.dtype, x.dtype),
        x=at(x),
        rows=len(x),
        inputs=x.shape[1],
        packed=at(packed),
        bias=at(offset),
        outputs=len(layer),
        drop_path=_drop_path(x, keep),
        residual=at(residual),
        y=at(y),
        threads=_threads(),
    )
    return y


def linear_residual_backward(
    grad_y: Tensor, layer: Tensor, keep: Tensor | None, x: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the gradients of `linear_residual` for x, layer (if `wanted`) and offset."""
    grad_x, grad_layer, grad_offset = torch.empty_like(x), _room_for(layer, wanted), fp32(len(layer))
    transposed = pack(layer, x.dtype, transposed=True)
    invoke(
        _function("linear_residual_backward", grad_y.dtype, x.dtype),
        grad_y=at(grad_y),
        rows=len(grad_y),
        outputs=grad_y.shape[1],
        inputs=layer.shape[1],
        drop_path=_drop_path(x, keep),
        transposed=at(transposed),
        x=at(x),
        grad_x=at(grad_x),
        grad_weight=at(grad_layer),
        grad_bias=at(grad_offset),
        threads=_threads(),
    )
    return grad_x, grad_layer, grad_offset


class Inner(NamedTuple):
    """The weights of an MLP: `(hidden, C)`, `(hidden,)`, `(C, hidden)`, `(C,)`; biases in fp32."""

    first: Tensor
    bias1: Tensor
    second: Tensor
    bias2: Tensor


def mlp(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    inner: Inner,
    keep: Tensor | None,
    dtype: torch.dtype,
    learn: bool,
) -> tuple[Tensor, Normed, Tensor]:
    """Return `x + keep * (gelu(norm(x) first^T + bias1) second^T + bias2)`, the norm, and the input of GELU."""
    normed = Normed.of(x, weight, bias, dtype, learn)
    wide = len(inner.first)
    hidden, y = torch.empty(len(x) if learn else 0, wide, dtype=dtype), torch.empty_like(x)
    first, second = pack(inner.first, dtype), pack(inner.second, dtype)
    invoke(
        _function("mlp", x.dtype, dtype),
        x=at(x),
        rows=len(x),
        depth=x.shape[1],
        norm=normed.args(),
        eps=eps,
        packed1=at(first),
        bias1=at(inner.bias1),
        hidden=wide,
        packed2=at(second),
        bias2=at(inner.bias2),
        drop_path=_drop_path(x, keep),
        between=at(hidden if learn else None),
        y=at(y),
        threads=_threads(),
    )
    return y, normed, hidden


def mlp_backward(
    grad_y: Tensor, normed: Normed, hidden: Tensor, inner: Inner, keep: Tensor | None, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor, Inner]:
    """Return the gradients of `mlp`: of x, of the norm's weight and bias, and of the MLP's weights.

    The gradients of the first and second layer are None if they are not `wanted`.
    """
    dtype, grad_x = hidden.dtype, torch.empty_like(grad_y)
    grad_weight, grad_bias = torch.empty_like(normed.weight), torch.empty_like(normed.bias)
    into = (
        _room_for(inner.first, wanted[0]),
        torch.empty_like(inner.bias1),
        _room_for(inner.second, wanted[1]),
        torch.empty_like(inner.bias2),
    )
    first, second = pack(inner.first, dtype, transposed=True), pack(inner.second, dtype, transposed=True)
    grad_first, grad_bias1, grad_second, grad_bias2 = map(at, into)
    invoke(
        _function("mlp_backward", grad_y.dtype, dtype),
        grad_y=at(grad_y),
        rows=len(grad_y),
        depth=grad_y.shape[1],
        hidden=hidden.shape[1],
        drop_path=_drop_path(grad_y, keep),
        transposed2=at(second),
        between=at(hidden),
        transposed1=at(first),
        norm=normed.args(),
        grad_x=at(grad_x),
        grad_weight1=grad_first,
        grad_bias1=grad_bias1,
        grad_weight2=grad_second,
        grad_bias2=grad_bias2,
        grad_scale=at(grad_weight),
        grad_shift=at(grad_bias),
        threads=_threads(),
    )
    return grad_x, grad_weight, grad_bias, Inner(*into)  # pyright: ignore[reportArgumentType]


def pack(layer: Tensor, dtype: torch.dtype, transposed: bool = False) -> Tensor:
    """Pack weights `(out, in)` in panels (native/gemm.h) for `x layer^T`, or transposed for `x layer`."""
    layer = layer.detach().contiguous()
    if layer.dtype not in (dtype, torch.float32):
        layer = layer.float()
    outputs, inputs = layer.shape
    across, along = (inputs, outputs) if transposed else (outputs, inputs)
    lanes = library("fused_train").vitrail_lanes()
    packed = torch.empty((across + -across % lanes) * along, dtype=dtype)
    _function("pack", layer.dtype, dtype)(at(layer), outputs, inputs, int(transposed), at(packed), _threads())
    return packed


def _room_for(layer: Tensor, wanted: bool) -> Tensor | None:
    return fp32(*layer.shape) if wanted else None


def _function(name: str, rows: torch.dtype, products: torch.dtype) -> Callable[..., None]:
    """Return the native function for a residual dtype and a compute dtype."""
    suffix = SUFFIXES[rows] if rows == products else "mixed"
    return getattr(library("fused_train"), f"vitrail_{name}_{suffix}")


def _drop_path(x: Tensor, keep: Tensor | None) -> Arguments:
    """Return the argument struct of drop path: the scale of each sample, whose rows are consecutive."""
    return nested("DropPathArgs", factors=keep, span=len(x) if keep is None else len(x) // len(keep))


def _threads() -> int:
    return torch.get_num_threads()
