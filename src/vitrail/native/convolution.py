"""Convolutions as one product: windows are gathered a few at a time, by index arithmetic, and never leave the cache.

They compute without gradients, on a CPU, in fp32 or bf16, and add up in fp32.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.calls import at, function
from vitrail.native.memory import empty
from vitrail.native.norms import LaneNorm
from vitrail.native.products import PackedLinear, pack_linear
from vitrail.shapes import FeatureMap


@dataclass(frozen=True)
class PackedConvolution:
    """A convolution of square windows ready for the product. Build it with `pack_convolution`."""

    product: PackedLinear
    channels: int
    size: int
    stride: int
    padding: int

    def length(self, side: int) -> int:
        """Return how many windows fit on a side."""
        return (side + 2 * self.padding - self.size) // self.stride + 1


def pack_convolution(
    weight: Tensor, bias: Tensor | None, stride: int, padding: int, dtype: torch.dtype
) -> PackedConvolution:
    """Lay filters `(out, in, k, k)` out as the product reads them.

    Args:
        weight: fp32 filters.
        bias: fp32, or None.
        stride: step between two windows.
        padding: zeros on every side of the map.
        dtype: precision to compute in.
    """
    channels, size = weight.shape[1:3]
    rows = weight.permute(0, 2, 3, 1).flatten(1)  # (out, in, k, k) -> (out, k k in), as windows lie in memory
    product = pack_linear(pad(rows, (0, rows.shape[1] % 2)), bias, dtype)  # an even number, to be read in pairs
    return PackedConvolution(product, channels, size, stride, padding)


def convolve(x: FeatureMap, packed: PackedConvolution, norm: LaneNorm | None = None) -> Tensor:
    """Convolve a map, channels last, and normalise each place: `(B, H, W, C) -> (B, h, w, out)`."""
    x = x.contiguous()
    batch, height, width, channels = x.shape
    product, rows, columns = packed.product, packed.length(height), packed.length(width)
    assert x.dtype == product.dtype and channels == packed.channels, (x.dtype, x.shape, packed.channels)
    y = empty(batch, rows, columns, product.outputs, dtype=x.dtype)
    function("convolution", "convolve", x.dtype)(
        at(x),
        *x.shape,
        packed.size,
        packed.stride,
        packed.padding,
        packed.padding,
        rows,
        columns,
        at(product.panels),
        product.inputs,
        at(product.bias),
        product.outputs,
        at(None if norm is None else norm.weight),
        at(None if norm is None else norm.bias),
        ctypes.c_float(0.0 if norm is None else norm.eps),
        at(y),
        torch.get_num_threads(),
    )
    return y
