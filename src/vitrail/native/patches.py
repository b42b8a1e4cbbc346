"""Patch embedding and patch merging as a GEMM, blocked so that gathered patches stay in the cache.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation. Tokens have the residual dtype.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.ffi import at, call
from vitrail.native.gemm import PackedLinear
from vitrail.native.norms import LaneNorm, norm_args
from vitrail.shapes import FeatureMap, Image


class Pixels(NamedTuple):
    """Affine map of pixel values before the cast: `x * factor + shift` for each channel, fp32 `(C,)`."""

    factor: Tensor
    shift: Tensor

    @classmethod
    def as_they_are(cls, channels: int) -> "Pixels":
        """Return the identity."""
        shift = torch.zeros(channels, dtype=torch.float32, device="cpu")
        return cls(shift + 1, shift)


def embed_patches(
    images: Image, size: int, packed: PackedLinear, norm: LaneNorm | None = None, pixels: Pixels | None = None
) -> Tensor:
    """Return `norm(patches W^T + b)`, `(B, rows, columns, out)`; incomplete patches are zero-padded.

    Args:
        images: fp32 `(B, C, Y, X)`.
        size: patch size.
        packed: the filters `(out, C size size)`, zero-padded to an even number of inputs.
        norm: norm of the output, or None.
        pixels: affine map of the pixels, already accounted for in the filters; identity by default.
    """
    images = images.float().contiguous()
    batch, channels, height, width = images.shape
    rows, columns = -(-height // size), -(-width // size)
    pixels = pixels or Pixels.as_they_are(channels)
    assert pixels.factor.shape == pixels.shift.shape == (channels,), (pixels.factor.shape, channels)
    assert packed.inputs - channels * size * size in (0, 1), (packed.inputs, channels, size)
    y = empty(batch, rows, columns, packed.outputs, dtype=RESIDUAL[packed.dtype])
    call(
        *("patches", "embed", packed.dtype),
        x=at(images),
        factors=at(pixels.factor),
        shifts=at(pixels.shift),
        batch=batch,
        channels=channels,
        height=height,
        width=width,
        size=size,
        rows=rows,
        columns=columns,
        weights=packed.args,
        norm=norm_args(norm),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def merge_patches(cells: FeatureMap, size: int, packed: PackedLinear, norm_eps: float) -> Tensor:
    """Return `norm(squares) W^T + b`, `(B, rows, columns, out)`; incomplete squares are zero-padded.

    Args:
        cells: `(B, H, W, C)`.
        size: side of a square; its cells are concatenated row by row.
        packed: the weights `(out, size size C)`.
        norm_eps: epsilon of the norm over each square (mean 0, variance 1).
    """
    cells = cells.contiguous()
    batch, height, width, channels = cells.shape
    assert cells.dtype == RESIDUAL[packed.dtype] and packed.inputs == size * size * channels, (
        cells.shape,
        packed.inputs,
    )
    y = empty(batch, -(-height // size), -(-width // size), packed.outputs, dtype=cells.dtype)
    call(
        *("patches", "merge", packed.dtype),
        x=at(cells),
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        size=size,
        weights=packed.args,
        eps=norm_eps,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y
