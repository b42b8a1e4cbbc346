"""Depthwise convolutions of channels-last maps, with the activations around them.

Inference on a CPU, in fp32, bf16 or the residual dtype, with fp32 filters and accumulation.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.ffi import at, call, nested
from vitrail.native.gemm import PackedLinear
from vitrail.native.norms import lanes

Before = Literal["none", "relu", "squared relu"]
_BEFORE: dict[Before, int] = {"none": 0, "relu": 1, "squared relu": 2}
MOST = 15
"""Largest side of the filters."""


@dataclass(frozen=True)
class PackedDepthwise:
    """Filters of a depthwise convolution, packed by `pack_depthwise`.

    Args:
        taps: `(vectors of channels, k k, lanes)`, fp32.
        bias: padded to whole vectors, fp32.
        channels: channels C.
        size: side k of the filters, odd.
        before: activation of the input; zeros around the map are not activated.
        scale: factor after a squared ReLU.
        shift: addend after it.
        after: scale and shift of each channel of the activated result, padded to whole vectors, fp32; or None.
    """

    taps: Tensor
    bias: Tensor
    channels: int
    size: int
    before: Before = "none"
    scale: float = 1.0
    shift: float = 0.0
    after: tuple[Tensor, Tensor] | None = None


def pack_depthwise(
    conv: nn.Conv2d, before: Before = "none", scale: float = 1.0, shift: float = 0.0, residual: bool = False
) -> PackedDepthwise:
    """Pack the filters of a depthwise convolution with zeros around the map.

    Args:
        conv: the convolution, `groups` equal to its channels, of an odd side.
        before: activation of the input.
        scale: factor after a squared ReLU.
        shift: addend after it.
        residual: whether the input is added to the result: the centre of each filter grows by 1.
    """
    (channels, _, size, _), width = conv.weight.shape, library("gemm").vitrail_lanes()
    weight = conv.weight.detach().float().flatten(1).clone()  # (C, k k)
    if residual:
        weight[:, size * size // 2] += 1
    bias = torch.zeros(channels) if conv.bias is None else conv.bias.detach().float()
    rows = torch.nn.functional.pad(weight, (0, 0, 0, -channels % width))
    taps = rows.unflatten(0, (-1, width)).mT.contiguous()  # (C, k k) -> (vectors, k k, lanes)
    return PackedDepthwise(taps, lanes(bias), channels, size, before, scale, shift)


def depthwise(x: Tensor, grid: Grid, packed: PackedDepthwise, gelu: bool = False, add: Tensor | None = None) -> Tensor:
    """Return `act(conv(before(x))) scale + shift + add`, `(B, h w, C)`, in the dtype of `add`, else of x.

    Args:
        x: cells, in fp32, bf16 or the residual dtype.
        grid: their grid, without prefix.
        packed: the filters.
        gelu: whether the result is activated by GELU; not in the residual dtype.
        add: added to the result, `(B, h w, C)` in the dtype of x or the residual dtype; or None.
    """
    x, add = x.contiguous(), None if add is None else add.contiguous()
    assert x.shape[1:] == (grid.h * grid.w, packed.channels) and packed.size <= MOST, (x.shape, grid, packed.size)
    assert add is None or add.shape == x.shape, (x.shape, add.shape)
    y = empty(*x.shape, dtype=x.dtype if add is None else add.dtype)
    if y.numel():
        call("depthwise", "depthwise", x.dtype, y.dtype, **_fields(x, grid, packed, gelu, add, y))
    return y


def depthwise_branch(
    x: Tensor, grid: Grid, first: PackedLinear, packed: PackedDepthwise, last: PackedLinear, norm_eps: float, gelu: bool
) -> Tensor:
    """Return `x + W_2 act(conv(before(W_1 norm(x))))`; strips of the hidden map stay in the cache.

    Args:
        x: cells `(B, h w, C)`, in the residual dtype.
        grid: their grid, without prefix.
        first: the layer before the convolution.
        packed: the filters.
        last: the layer after it.
        norm_eps: epsilon of the norm without scale and shift.
        gelu: whether the result of the convolution is activated by GELU.
    """
    x = x.contiguous()
    assert x.shape[1:] == (grid.h * grid.w, first.inputs) and packed.size <= MOST, (x.shape, grid, packed.size)
    assert first.outputs == packed.channels == last.inputs and last.outputs == first.inputs, (first, last)
    assert first.takes(x, norm_eps) and first.dtype == last.dtype, (x.dtype, first.dtype, last.dtype)
    y = empty(*x.shape, dtype=x.dtype)
    if y.numel():
        conv = nested("DepthwiseArgs", **_fields(x, grid, packed, gelu, None, y))
        layers = {"first": first.args, "second": last.args, "eps": norm_eps}
        call("depthwise", "depthwise_branch", first.dtype, conv=conv, **layers)
    return y


def _fields(
    x: Tensor, grid: Grid, packed: PackedDepthwise, gelu: bool, add: Tensor | None, y: Tensor
) -> dict[str, Any]:
    """Return the fields of `DepthwiseArgs`."""
    scale_after, shift_after = packed.after or (None, None)
    return {
        "x": at(x),
        "batch": x.shape[0],
        "height": grid.h,
        "width": grid.w,
        "channels": packed.channels,
        "size": packed.size,
        "taps": at(packed.taps),
        "bias": at(packed.bias),
        "before": _BEFORE[packed.before],
        "scale": packed.scale,
        "shift": packed.shift,
        "activate": gelu,
        "scale_after": at(scale_after),
        "shift_after": at(shift_after),
        "add": at(add),
        "y": at(y),
        "threads": torch.get_num_threads(),
    }
