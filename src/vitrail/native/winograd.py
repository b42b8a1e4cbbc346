"""3 x 3 convolutions by Winograd's minimal filtering, a quarter of the products; of enlarged maps too.

Inference on a CPU: maps in fp32 or in the residual dtype of bf16 models, products always in fp32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.ffi import at, call, invoke
from vitrail.native.gemm import pack_linear
from vitrail.shapes import FeatureMap

FILTER_TRANSFORM = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
"""G of F(4x4, 3x3): three taps to six values ("Fast Algorithms for Convolutional Neural Networks", section 4.1)."""


@dataclass(frozen=True)
class PackedFilters3x3:
    """Transformed filters in panels, one GEMM for each of the 36 values. Build them with `pack_3x3`."""

    panels: Tensor
    bias: Tensor
    inputs: int
    outputs: int


def pack_3x3(weight: Tensor, bias: Tensor | None = None) -> PackedFilters3x3:
    """Transform and pack filters `(out, in, 3, 3)`; the transform is computed in fp64.

    Args:
        weight: filters.
        bias: fp32, or None.
    """
    outputs, inputs = weight.shape[:2]
    transform = torch.tensor(FILTER_TRANSFORM, dtype=torch.float64, device="cpu")
    parts = torch.einsum("iy,ocyx,jx->ijoc", transform, weight.detach().double(), transform).flatten(0, 1)
    packed = [pack_linear(part.float(), bias, torch.float32) for part in parts]
    return PackedFilters3x3(torch.cat([each.panels for each in packed]), packed[0].bias, inputs, outputs)


def convolve_3x3(x: FeatureMap, packed: PackedFilters3x3, add: Tensor | None = None, slope: float = 1.0) -> Tensor:
    """Return `act(conv(x) + bias + add)` with padding 1, `act(v) = max(v, slope v)`: `(B, H, W, C) -> (B, H, W, out)`.

    Args:
        x: the map, in fp32 or the residual dtype of bf16 models.
        packed: the filters.
        add: a map of the size and dtype of the result, or None.
        slope: of negative values: 0 for a ReLU, 1 for no activation.
    """
    x = x.contiguous()
    y = empty(*x.shape[:3], packed.outputs, dtype=x.dtype)
    assert x.shape[3] == packed.inputs and 0 <= slope <= 1, (x.shape, packed.inputs, slope)
    assert add is None or (add.shape == y.shape and add.dtype == y.dtype), (y.shape, y.dtype)
    if not y.numel():  # no image: a detector that found nothing has no maps for its masks
        return y
    add = None if add is None else add.contiguous()
    batch, height, width, channels = x.shape
    call(
        *("winograd", "convolve_3x3", x.dtype),
        x=at(x),
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        packed=at(packed.panels),
        bias=at(packed.bias),
        outputs=packed.outputs,
        add=at(add),
        slope=slope,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def add_upsampled(products: Tensor, y: Tensor, add: bool) -> Tensor:
    """Write the 3 x 3 convolution of a bilinearly enlarged map into y, or add it.

    conv(up(x))[p] = sum over taps t of up(W_t x)[p + t]

    Args:
        products: `W_t x` of the small map, `(B, h, w, 9, out)`, taps row by row, fp32 and contiguous.
        y: `(B, H, W, out)`, fp32 and contiguous.
        add: whether to add to y.
    """
    batch, tall, wide, _, outputs = products.shape
    assert products.dtype == y.dtype == torch.float32 and y.shape[::3] == (batch, outputs), (products.shape, y.shape)
    invoke(
        library("winograd").vitrail_add_upsampled,
        products=at(products),
        batch=batch,
        tall=tall,
        wide=wide,
        outputs=outputs,
        y=at(y),
        height=y.shape[1],
        width=y.shape[2],
        add=add,
        threads=torch.get_num_threads(),
    )
    return y
