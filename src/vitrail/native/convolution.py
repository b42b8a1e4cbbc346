"""Convolutions as implicit GEMM: filters read rows of the map in place, and few of them are copied.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.allocator import empty
from vitrail.native.ffi import at, call, nested, start_of
from vitrail.native.gemm import PackedLinear, pack_linear
from vitrail.native.norms import LaneNorm, norm_args
from vitrail.shapes import FeatureMap

CHUNK_ROWS = 448  # GEMM rows of a block: enough to amortise reading the filters
CHUNK_BYTES = 400 << 10  # input bytes of a block: few enough for the cache


@dataclass(frozen=True)
class PackedConvolution:
    """A convolution with square windows, packed for the GEMM. Build it with `pack_convolution`."""

    product: PackedLinear
    channels: int
    size: int
    stride: int
    padding: int

    def length(self, side: int) -> int:
        """Return the output size for an input of size `side`."""
        return (side + 2 * self.padding - self.size) // self.stride + 1


def pack_convolution(
    weight: Tensor, bias: Tensor | None, stride: int, padding: int, dtype: torch.dtype
) -> PackedConvolution:
    """Pack filters `(out, in, k, k)` for the GEMM.

    Args:
        weight: fp32 filters.
        bias: fp32, or None.
        stride: stride.
        padding: zero padding on every side.
        dtype: compute dtype.
    """
    channels, size = weight.shape[1:3]
    return PackedConvolution(pack_lines(weight, bias, dtype), channels, size, stride, padding)


def pack_lines(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> PackedLinear:
    """Pack filters `(out, in, k, k)`; k runs over rows, columns and channels, in bf16 in pairs that restart per row."""
    lines = weight.detach().float().permute(0, 2, 3, 1).flatten(2)  # (out, in, k, k) -> (out, k, k in)
    lines = pad(lines, (0, lines.shape[2] % 2)) if dtype == torch.bfloat16 else lines
    return pack_linear(lines.flatten(1), bias, dtype)


def convolve(
    x: FeatureMap, packed: PackedConvolution, norm: LaneNorm | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Convolve a channels-last map and normalise each position: `(B, H, W, C) -> (B, h, w, out)`.

    A permuted view of NCHW images is read without a copy.

    Args:
        x: the map, in the dtype of the filters.
        packed: the filters.
        norm: norm of the output, or None.
        dtype: output dtype: that of x (default), or the residual dtype.
    """
    planar = x.movedim(3, 1).is_contiguous() and not x.is_contiguous()
    x = x if planar else x.contiguous()
    batch, height, width, channels = x.shape
    product, tall, wide = packed.product, packed.length(height), packed.length(width)
    assert x.dtype == product.dtype and channels == packed.channels, (x.dtype, x.shape, packed.channels)
    y = empty(batch, tall, wide, product.outputs, dtype=dtype or x.dtype)
    threads = torch.get_num_threads()
    share = -(-batch * tall // threads)
    lines = lines_at_a_time((tall, wide), packed.size, packed.stride, channels * x.element_size(), most=share)
    shape = {"batch": batch, "height": height, "width": width, "channels": channels}
    padding = {"top": packed.padding, "left": packed.padding}
    call(
        *("convolution", "convolve", x.dtype, y.dtype),
        map=nested("MapArgs", x=start_of(x), **shape, planar=planar, scale=None, shift=None),
        window=nested("WindowArgs", side=packed.size, stride=packed.stride, **padding, tall=tall, wide=wide),
        weights=product.args,
        norm=norm_args(norm),
        y=at(y),
        lines=lines,
        threads=threads,
    )
    return y


def lines_at_a_time(places: tuple[int, int], side: int, stride: int, bytes_of_pixel: int, most: int) -> int:
    """Return the number of output rows per block, at most `most`; blocks are balanced."""
    tall, wide = places
    seen = ((wide - 1) * stride + side) * stride * bytes_of_pixel
    return even(tall, max(1, min(CHUNK_ROWS // wide, CHUNK_BYTES // seen, most)))


def even(n: int, most: int) -> int:
    """Return the length of balanced blocks of n items, none longer than `most`."""
    return -(-n // -(-n // most))
