"""Convolutions as one product: filters read lines of the map where they lie, and only a few of those are copied.

They compute without gradients, on a CPU, in fp32 or bf16, and add up in fp32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.allocator import empty
from vitrail.native.ffi import at, function, start_of
from vitrail.native.gemm import PackedLinear, pack_linear
from vitrail.native.norms import LaneNorm, norm_operands
from vitrail.shapes import FeatureMap

CHUNK_ROWS = 448  # rows of a result that are computed at a time: enough to read the filters seldom,
CHUNK_BYTES = 400 << 10  # and few enough that what they see stays in the cache


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
    return PackedConvolution(pack_lines(weight, bias, dtype), channels, size, stride, padding)


def pack_lines(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> PackedLinear:
    """Pack filters `(out, in, k, k)` step by step along lines, places and channels; in bf16 each line anew in pairs."""
    lines = weight.detach().float().permute(0, 2, 3, 1).flatten(2)  # (out, in, k, k) -> (out, k, k in)
    lines = pad(lines, (0, lines.shape[2] % 2)) if dtype == torch.bfloat16 else lines
    return pack_linear(lines.flatten(1), bias, dtype)


def convolve(
    x: FeatureMap, packed: PackedConvolution, norm: LaneNorm | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Convolve a map, channels last, and normalise each place: `(B, H, W, C) -> (B, h, w, out)`.

    A view of pictures whose channels are planes in memory is read as it is.

    Args:
        x: the map, in the precision of the filters.
        packed: the filters.
        norm: what follows, or None.
        dtype: how the answer is stored: as x, which is the default, or as the residual.
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
    function("convolution", "convolve", x.dtype, y.dtype)(
        *(start_of(x), *x.shape, int(planar)),
        *(packed.size, packed.stride, packed.padding, packed.padding, tall, wide),
        *(*product.operands(), product.outputs, *norm_operands(norm), at(y), lines, threads),
    )
    return y


def lines_at_a_time(places: tuple[int, int], side: int, stride: int, bytes_of_pixel: int, most: int) -> int:
    """Return how many lines of a result are computed at a time, at most `most` of them; chunks are even."""
    tall, wide = places
    seen = ((wide - 1) * stride + side) * stride * bytes_of_pixel
    return even(tall, max(1, min(CHUNK_ROWS // wide, CHUNK_BYTES // seen, most)))


def even(n: int, most: int) -> int:
    """Return the length of the pieces that n is cut into evenly, none longer than `most`."""
    return -(-n // -(-n // most))
