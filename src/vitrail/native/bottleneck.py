"""Convolutions with packed filters between norms, one GEMM each; feature maps are `(B, N, C)` tokens.

A group norm and its ReLU are fused into the operation that reads the map, and its statistics into the one that wrote
it, so neither needs a pass over memory; maps have the residual dtype. A batch norm is fused into the convolution before
it, and maps between two convolutions have the compute dtype. Inference on a CPU, in fp32 or bf16, with fp32
accumulation.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.native.allocator import empty, fp32
from vitrail.native.build import library
from vitrail.native.convolution import CHUNK_ROWS, even, lines_at_a_time, pack_lines
from vitrail.native.dtypes import PRODUCTS, RESIDUAL
from vitrail.native.ffi import at, call, invoke, nested
from vitrail.native.prototypes import Arguments

NONE, RELU, GELU = 0, 1, 2
"""Activations after a convolution."""

Size = tuple[int, int]
"""Height and width of a feature map."""


class Window(NamedTuple):
    """Window of a convolution or a pooling.

    Args:
        side: kernel size k.
        stride: stride.
        same: TensorFlow's SAME padding, output size ceil(n / stride); else k // 2 on every side.
    """

    side: int
    stride: int
    same: bool = False

    def args(self, padding: tuple[int, int], places: tuple[int, int]) -> Arguments:
        """Return the argument struct, with the padding before rows and columns, and the output size."""
        (top, left), (tall, wide) = padding, places
        sizes = {"top": top, "left": left, "tall": tall, "wide": wide}
        return nested("WindowArgs", side=self.side, stride=self.stride, **sizes)

    def places(self, n: int) -> tuple[int, int]:
        """Return the output size for an input of size n, and the padding before it.

        Example:
            >>> Window(3, 2).places(6), Window(3, 2, same=True).places(6)
            ((3, 1), (3, 0))
        """
        if not self.same:
            return (n + 2 * (self.side // 2) - self.side) // self.stride + 1, self.side // 2
        count = -(-n // self.stride)
        return count, max((count - 1) * self.stride + self.side - n, 0) // 2


class PackedFilters(NamedTuple):
    """Filters packed in panels for the GEMM (native/gemm.h); k runs over rows, columns and channels."""

    panels: Tensor
    window: Window
    inputs: int
    outputs: int


class GroupScale(NamedTuple):
    """Parameters of a group norm in fp32."""

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float


class Moments(NamedTuple):
    """Statistics of a map's channels, `(B, chunks, 3, C)`, for every `chunk` of its `rows` rows."""

    values: Tensor
    chunk: int
    rows: int


class Affine(NamedTuple):
    """A norm with known statistics: scale and shift of each image and channel, each `(B, C)`."""

    scale: Tensor
    shift: Tensor


def pack_filters(weight: Tensor, window: Window, dtype: torch.dtype) -> PackedFilters:
    """Pack filters `(out, in, k, k)` for the GEMM."""
    return PackedFilters(pack_lines(weight, None, dtype).panels, window, weight.shape[1], weight.shape[0])


def convolve(
    x: Tensor,
    size: Size,
    filters: PackedFilters,
    norm: Affine | None = None,
    add: Tensor | None = None,
    into: Tensor | None = None,
) -> tuple[Tensor, Size, Moments]:
    """Return the convolution of relu(norm(x)), or of x without a norm, and the moments of the result.

    Args:
        x: a map `(B, N, C)`, or images `(B, C, Y, X)`.
        size: its height and width.
        filters: from `pack_filters`; the number of outputs is a multiple of 16.
        norm: norm of x, followed by a ReLU.
        add: residual added to the result.
        into: output tensor; a new one if None.
    """
    x = x.contiguous()
    y, (tall, wide), lines, fields = _prepared(x, size, filters, norm, add, into, x.dtype)
    assert y.dtype == x.dtype and filters.panels.dtype == PRODUCTS[x.dtype], (x.dtype, filters.panels.dtype)
    moments = fp32(len(y), -(-tall // lines), 3, filters.outputs)
    call("bottleneck", "convolve", PRODUCTS[x.dtype], **fields, moments=at(moments))
    return y, (tall, wide), Moments(moments, lines * wide, tall * wide)


def convolve_shifted(
    x: Tensor,
    size: Size,
    filters: PackedFilters,
    shift: Tensor,
    norm: Affine | None = None,
    add: Tensor | None = None,
    into: Tensor | None = None,
    dtype: torch.dtype | None = None,
    activation: int = RELU,
) -> tuple[Tensor, Size]:
    """Return `act(convolution(x) + shift + add)`: a convolution whose batch norm is folded in.

    Args:
        x: a map `(B, N, C)` in the compute or the residual dtype, or images `(B, C, Y, X)`.
        size: its height and width.
        filters: from `pack_filters`, with the scale of the norm; the number of outputs is a multiple of 16.
        shift: shift of the norm, `(outputs,)` in fp32.
        norm: norm of x, followed by a ReLU; x is used as it is if None.
        add: residual added to the result, in the dtype of the result.
        into: output tensor; a new one if None.
        dtype: output dtype, the compute or the residual dtype; that of `into`, else of x by default.
        activation: `NONE`, `RELU` or `GELU`.
    """
    x, compute = x.contiguous(), filters.panels.dtype
    y, places, _, fields = _prepared(x, size, filters, norm, add, into, dtype or x.dtype)
    assert shift.shape == (filters.outputs,), shift.shape
    assert {x.dtype, y.dtype} <= {compute, RESIDUAL[compute]}, (x.dtype, y.dtype, compute)
    call("bottleneck", "convolve_shifted", x.dtype, y.dtype, **fields, shift=at(shift), activation=activation)
    return y, places


def _prepared(
    x: Tensor,
    size: Size,
    filters: PackedFilters,
    norm: Affine | None,
    add: Tensor | None,
    into: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Size, int, dict[str, Any]]:
    """Return output, its size, lines of a block, and the arguments that both convolutions take."""
    window = filters.window
    (tall, top), (wide, left) = map(window.places, size)
    shape = (x.shape[0], tall * wide, filters.outputs)
    y = empty(*shape, dtype=dtype) if into is None else into
    assert y.shape == shape and filters.outputs % 16 == 0, shape
    assert x.numel() == x.shape[0] * size[0] * size[1] * filters.inputs, (x.shape, size, filters.inputs)
    assert add is None or (add.shape == shape and add.dtype == y.dtype), shape
    lines = lines_at_a_time((tall, wide), window.side, window.stride, filters.inputs * x.element_size(), most=tall)
    fields = {
        "map": _map(x, size, filters.inputs, norm),
        "window": window.args((top, left), (tall, wide)),
        "panels": at(filters.panels),
        "outputs": filters.outputs,
        "add": at(add),
        "y": at(y),
        "lines": lines,
        "threads": torch.get_num_threads(),
    }
    return y, (tall, wide), lines, fields


def measure(x: Tensor) -> Moments:
    """Compute the moments of a map `(B, N, C)`; C is a multiple of 16."""
    batch, rows, channels = x.shape
    assert channels % 16 == 0, channels
    chunk = even(rows, CHUNK_ROWS)
    moments = fp32(batch, -(-rows // chunk), 3, channels)
    call(
        *("bottleneck", "measure", PRODUCTS[x.dtype]),
        x=at(x),
        batch=batch,
        rows=rows,
        channels=channels,
        chunk=chunk,
        moments=at(moments),
        threads=torch.get_num_threads(),
    )
    return Moments(moments, chunk, rows)


def finalize(moments: Moments, norm: GroupScale) -> Affine:
    """Return scale and shift of a norm for images with these moments."""
    batch, _, _, channels = moments.values.shape
    scale, shift = fp32(2, batch, channels).unbind()
    invoke(
        library("bottleneck").vitrail_finalize,
        moments=at(moments.values),
        batch=batch,
        rows=moments.rows,
        chunk=moments.chunk,
        channels=channels,
        groups=norm.groups,
        weight=at(norm.weight),
        bias=at(norm.bias),
        eps=norm.eps,
        scale=at(scale),
        shift=at(shift),
    )
    return Affine(scale, shift)


def join(x: Tensor, norm_x: Affine | None, z: Tensor, norm_z: Affine, into: Tensor | None = None) -> Tensor:
    """Return relu(norm_x(x) + norm_z(z)) of two maps; x is used as it is if `norm_x` is None."""
    y = empty(*z.shape, dtype=z.dtype) if into is None else into
    assert x.shape == y.shape == z.shape and x.dtype == y.dtype == z.dtype, (x.shape, y.shape, z.shape)
    batch, rows, channels = z.shape
    scale_x, shift_x = norm_x or (None, None)
    call(
        *("bottleneck", "join", PRODUCTS[x.dtype]),
        x=at(x),
        scale_x=at(scale_x),
        shift_x=at(shift_x),
        z=at(z),
        scale_z=at(norm_z.scale),
        shift_z=at(norm_z.shift),
        batch=batch,
        rows=rows,
        channels=channels,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def pool(x: Tensor, size: Size, window: Window, norm: Affine | None = None) -> tuple[Tensor, Size]:
    """Return the max pooling of relu(norm(x)), or of x without a norm, with zero padding."""
    batch, _, channels = x.shape
    (tall, top), (wide, left) = map(window.places, size)
    y = empty(batch, tall * wide, channels, dtype=x.dtype)
    call(
        *("bottleneck", "pool", PRODUCTS[x.dtype]),
        map=_map(x, size, channels, norm),
        window=window.args((top, left), (tall, wide)),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y, (tall, wide)


def _map(x: Tensor, size: Size, channels: int, norm: Affine | None) -> Arguments:
    """Return the argument struct of a map `(B, N, C)` or of images `(B, C, Y, X)`, with its norm."""
    height, width = size
    scale, shift = norm or (None, None)
    sizes = {"batch": x.shape[0], "height": height, "width": width, "channels": channels}
    return nested("MapArgs", x=x, **sizes, planar=x.ndim == 4, scale=scale, shift=shift)
