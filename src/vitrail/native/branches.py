"""The branches of a block while it learns, forward and backward: all that stands around an attention, and an MLP whole.

They compute on a CPU. The residual is in fp32 or bf16, what products take and give in the same or in bf16; weights,
statistics and sums are in fp32, and sums over rows are taken in the same order on any number of threads. What lies
between the products of a branch stays in the cache.
"""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.native.calls import at
from vitrail.native.library import SUFFIXES, library
from vitrail.native.memory import fp32


class Normed(NamedTuple):
    """A LayerNorm and what its gradient needs.

    Args:
        weight: `(C,)`, fp32.
        bias: `(C,)`, fp32.
        z: `(T, C)`, rows brought to mean 0 and variance 1, in the precision of products.
        scale: `(T,)`, one over the deviation of each row.
    """

    weight: Tensor
    bias: Tensor
    z: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype, learn: bool) -> "Normed":
        """Make room for what the gradient needs of rows `(T, C)`, or none where nothing learns."""
        rows = len(x) if learn else 0
        return cls(weight, bias, torch.empty(rows, x.shape[1], dtype=dtype), fp32(rows))

    def room(self) -> tuple[object, object]:
        """Return where z and scale lie; nowhere if there is no room for them."""
        return (at(self.z), at(self.scale)) if len(self.z) else (None, None)


def enter(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, layer: Tensor, offset: Tensor, dtype: torch.dtype, learn: bool
) -> tuple[Tensor, Normed]:
    """Return `norm(x) layer^T + offset` of rows `(T, C)` in `dtype`, and the norm.

    Args:
        x: the residual.
        weight: the norm's, fp32.
        bias: the norm's, fp32.
        eps: added to the variance.
        layer: weights `(out, C)`.
        offset: `(out,)`, fp32.
        dtype: precision of the product.
        learn: whether there will be a gradient.
    """
    normed = Normed.of(x, weight, bias, dtype, learn)
    y, packed = torch.empty(len(x), len(layer), dtype=dtype), pack(layer, dtype)
    _function("enter", x.dtype, dtype)(
        *(at(x), *_sizes(x), at(weight), at(bias), ctypes.c_float(eps), *normed.room()),
        *(at(packed), at(offset), len(layer), at(y), _threads()),
    )
    return y, normed


def enter_back(
    into_y: Tensor, layer: Tensor, normed: Normed, past: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """Return the gradients of `enter`: of x on top of what comes `past` it, of layer, offset, weight and bias.

    That of the layer is left out where it is not `wanted`.
    """
    depth = layer.shape[1]
    into_x, into_layer, into_offset = torch.empty_like(past), _room_for(layer, wanted), fp32(len(layer))
    into_weight, into_bias = fp32(depth), fp32(depth)
    turned = pack(layer, into_y.dtype, turned=True)
    _function("enter_back", past.dtype, into_y.dtype)(
        *(at(into_y), *_sizes(into_y), at(turned), depth),
        *(*map(at, normed), at(past), at(into_x), at(into_layer), at(into_offset), at(into_weight), at(into_bias)),
        _threads(),
    )
    return into_x, into_layer, into_offset, into_weight, into_bias


def leave(x: Tensor, layer: Tensor, offset: Tensor, keep: Tensor | None, past: Tensor) -> Tensor:
    """Return `past + keep * (x layer^T + offset)`, with a factor `keep` for each sample, or None."""
    y, packed = torch.empty_like(past), pack(layer, x.dtype)
    _function("leave", past.dtype, x.dtype)(
        *(at(x), *_sizes(x), at(packed), at(offset), len(layer), at(keep), _span(x, keep)),
        *(at(past), at(y), _threads()),
    )
    return y


def leave_back(
    into_y: Tensor, layer: Tensor, keep: Tensor | None, x: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the gradients of `leave` for x, layer and offset; that of the layer only where it is `wanted`."""
    into_x, into_layer, into_offset = torch.empty_like(x), _room_for(layer, wanted), fp32(len(layer))
    turned = pack(layer, x.dtype, turned=True)
    _function("leave_back", into_y.dtype, x.dtype)(
        *(at(into_y), *_sizes(into_y), at(keep), _span(x, keep), at(turned)),
        *(layer.shape[1], at(x), at(into_x), at(into_layer), at(into_offset), _threads()),
    )
    return into_x, into_layer, into_offset


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
    """Return `x + keep * (gelu(norm(x) first^T + bias1) second^T + bias2)`, the norm, and what GELU was given."""
    normed = Normed.of(x, weight, bias, dtype, learn)
    wide = len(inner.first)
    hidden, y = torch.empty(len(x) if learn else 0, wide, dtype=dtype), torch.empty_like(x)
    first, second = pack(inner.first, dtype), pack(inner.second, dtype)
    _function("mlp", x.dtype, dtype)(
        *(at(x), *_sizes(x), at(weight), at(bias), ctypes.c_float(eps), *normed.room()),
        *(at(first), at(inner.bias1), wide, at(second), at(inner.bias2)),
        *(at(keep), _span(x, keep), at(hidden) if learn else None, at(y), _threads()),
    )
    return y, normed, hidden


def mlp_back(
    into_y: Tensor, normed: Normed, hidden: Tensor, inner: Inner, keep: Tensor | None, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor, Inner]:
    """Return the gradients of `mlp`: of x, of the norm's weight and bias, and of the MLP's weights.

    Those of the first and second layer are left out (None) where they are not `wanted`.
    """
    dtype, into_x = hidden.dtype, torch.empty_like(into_y)
    into_weight, into_bias = torch.empty_like(normed.weight), torch.empty_like(normed.bias)
    into = (
        _room_for(inner.first, wanted[0]),
        torch.empty_like(inner.bias1),
        _room_for(inner.second, wanted[1]),
        torch.empty_like(inner.bias2),
    )
    first, second = pack(inner.first, dtype, turned=True), pack(inner.second, dtype, turned=True)
    _function("mlp_back", into_y.dtype, dtype)(
        *(at(into_y), *_sizes(into_y), at(keep), _span(into_y, keep), at(second)),
        *(hidden.shape[1], at(hidden), at(first), *map(at, normed)),
        *(at(into_x), *map(at, into), at(into_weight), at(into_bias), _threads()),
    )
    return into_x, into_weight, into_bias, Inner(*into)  # pyright: ignore[reportArgumentType]


def pack(layer: Tensor, dtype: torch.dtype, turned: bool = False) -> Tensor:
    """Lay weights `(out, in)` out in panels (native/products.h), for `x layer^T`, or turned, for `x layer`."""
    layer = layer.detach().contiguous()
    if layer.dtype not in (dtype, torch.float32):
        layer = layer.float()
    outputs, inputs = layer.shape
    across, along = (inputs, outputs) if turned else (outputs, inputs)
    lanes = library("branches").vitrail_lanes()
    packed = torch.empty((across + -across % lanes) * along, dtype=dtype)
    _function("pack", layer.dtype, dtype)(at(layer), outputs, inputs, int(turned), at(packed), _threads())
    return packed


def _room_for(layer: Tensor, wanted: bool) -> Tensor | None:
    return fp32(*layer.shape) if wanted else None


def _function(name: str, rows: torch.dtype, products: torch.dtype) -> Callable[..., None]:
    """Return an operation for a precision of the residual and one of the products."""
    suffix = SUFFIXES[rows] if rows == products else "mixed"
    found = getattr(library("branches"), f"vitrail_{name}_{suffix}")
    found.restype = None
    return found


def _sizes(x: Tensor) -> tuple[ctypes.c_long, int]:
    return ctypes.c_long(x.shape[0]), x.shape[1]


def _span(x: Tensor, keep: Tensor | None) -> ctypes.c_long:
    return ctypes.c_long(len(x) if keep is None else len(x) // len(keep))


def _threads() -> int:
    return torch.get_num_threads()
