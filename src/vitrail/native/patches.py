"""Patches of pictures, and squares of tokens, as rows of one product; they never leave the cache.

They compute without gradients, on a CPU, in fp32 or bf16, and add up in fp32. Tokens are stored as the residual.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.ffi import at, function
from vitrail.native.gemm import PackedLinear
from vitrail.native.norms import LaneNorm, norm_operands
from vitrail.shapes import FeatureMap, Image


class Pixels(NamedTuple):
    """How numbers of a picture are read before they are rounded: `x * factor + shift` for each channel, fp32 `(C,)`."""

    factor: Tensor
    shift: Tensor

    @classmethod
    def as_they_are(cls, channels: int) -> "Pixels":
        """Change nothing."""
        shift = torch.zeros(channels, dtype=torch.float32, device="cpu")
        return cls(shift + 1, shift)


def embed_patches(
    images: Image, size: int, packed: PackedLinear, norm: LaneNorm | None = None, pixels: Pixels | None = None
) -> Tensor:
    """Return `norm(patches W^T + b)`, `(B, rows, columns, out)`; a patch that is cut off ends with zeros.

    Args:
        images: fp32 `(B, C, Y, X)`.
        size: side of a patch.
        packed: the filters `(out, C size size)`, the last input a zero where their number is odd.
        norm: what follows, or None.
        pixels: how pictures are read, which the filters must know; by default as they are.
    """
    images = images.float().contiguous()
    batch, channels, height, width = images.shape
    rows, columns = -(-height // size), -(-width // size)
    pixels = pixels or Pixels.as_they_are(channels)
    assert pixels.factor.shape == pixels.shift.shape == (channels,), (pixels.factor.shape, channels)
    assert packed.inputs - channels * size * size in (0, 1), (packed.inputs, channels, size)
    y = empty(batch, rows, columns, packed.outputs, dtype=RESIDUAL[packed.dtype])
    function("patches", "embed", packed.dtype)(
        at(images),
        at(pixels.factor),
        at(pixels.shift),
        *images.shape,
        size,
        rows,
        columns,
        *packed.operands(),
        packed.inputs,
        packed.outputs,
        *norm_operands(norm),
        at(y),
        torch.get_num_threads(),
    )
    return y


def merge_patches(cells: FeatureMap, size: int, packed: PackedLinear, norm_eps: float) -> Tensor:
    """Return `norm(squares) W^T + b`, `(B, rows, columns, out)`; a square that is cut off ends with zeros.

    Args:
        cells: `(B, H, W, C)`.
        size: side of a square; its cells lie row by row.
        packed: the weights `(out, size size C)`.
        norm_eps: each square is brought to mean 0 and variance 1 before.
    """
    cells = cells.contiguous()
    batch, height, width, channels = cells.shape
    assert cells.dtype == RESIDUAL[packed.dtype] and packed.inputs == size * size * channels, (
        cells.shape,
        packed.inputs,
    )
    y = empty(batch, -(-height // size), -(-width // size), packed.outputs, dtype=cells.dtype)
    function("patches", "merge", packed.dtype)(
        at(cells),
        *cells.shape,
        size,
        *packed.operands(),
        packed.outputs,
        ctypes.c_float(norm_eps),
        at(y),
        torch.get_num_threads(),
    )
    return y
