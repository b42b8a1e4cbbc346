"""3 x 3 convolutions by Winograd's minimal filtering, a quarter or 4 / 9 of the products; of enlarged maps too.

Inference on a CPU. In tiles of 4 x 4 outputs, maps are in fp32 or in the residual dtype of bf16 models and products in
fp32; in tiles of 2 x 2 outputs, maps and products are in fp32 or in bf16.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.bottleneck import Window
from vitrail.native.build import library
from vitrail.native.cpu_features import cpu_features
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.ffi import at, call, invoke
from vitrail.native.gemm import pack_linear
from vitrail.shapes import FeatureMap

FILTER_TRANSFORMS = {
    4: (
        (1 / 4, 0.0, 0.0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0.0, 0.0, 1.0),
    ),
    2: (
        (1.0, 0.0, 0.0),
        (1 / 2, 1 / 2, 1 / 2),
        (1 / 2, -1 / 2, 1 / 2),
        (0.0, 0.0, 1.0),
    ),
}
"""G of F(m x m, 3x3) by m: three taps to m + 2 values ("Fast Algorithms for Convolutional Neural Networks", 4.1)."""


TILED = Window(3, 1)
"""The window of these convolutions."""

_LIBRARIES = {4: "winograd", 2: "bottleneck"}
"""Library with tiles of a size: dense heads use those of 4, bottlenecks those of 2."""


def tiles_of_2_pay_off(dtype: torch.dtype) -> bool:
    """Return whether tiles of 2 are faster than the direct sum: not in bf16 on AMX, whose products cost less than V."""
    return dtype == torch.float32 or "amx_bf16" not in cpu_features()


@dataclass(frozen=True)
class PackedFilters3x3:
    """Transformed filters: for each panel of outputs one GEMM for each value of a tile. Build them with `pack_3x3`."""

    panels: Tensor
    bias: Tensor
    inputs: int
    outputs: int
    tile: int

    def takes(self, x: Tensor) -> bool:
        """Return whether the filters fit a map `(B, H, W, C)`."""
        dtypes = [self.panels.dtype, *([RESIDUAL[torch.bfloat16]] if self.tile == 4 else [])]
        return x.shape[3] == self.inputs and x.dtype in dtypes


def pack_3x3(
    weight: Tensor, bias: Tensor | None = None, tile: int = 4, dtype: torch.dtype = torch.float32
) -> PackedFilters3x3:
    """Transform and pack filters `(out, in, 3, 3)`; the transform is computed in fp64.

    Args:
        weight: filters.
        bias: fp32, or None.
        tile: side of a tile of outputs, 4 or 2.
        dtype: of the products; bf16 needs tiles of 2, and an even number of inputs.
    """
    outputs, inputs = weight.shape[:2]
    assert tile == 2 or dtype == torch.float32, (tile, dtype)
    transform = torch.tensor(FILTER_TRANSFORMS[tile], dtype=torch.float64, device="cpu")
    parts = torch.einsum("iy,ocyx,jx->ijoc", transform, weight.detach().double(), transform).flatten(0, 1)
    packed = [pack_linear(part.float(), bias, dtype) for part in parts]
    panel = library("gemm").vitrail_panel() * inputs
    order = zip(*(each.panels.split(panel) for each in packed), strict=True)  # (parts, panels) -> (panels, parts)
    return PackedFilters3x3(torch.cat([x for panels in order for x in panels]), packed[0].bias, inputs, outputs, tile)


def convolve_3x3(
    x: FeatureMap,
    packed: PackedFilters3x3,
    add: Tensor | None = None,
    slope: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return `act(conv(x) + bias + add)` with padding 1, `act(v) = max(v, slope v)`: `(B, H, W, C) -> (B, H, W, out)`.

    Args:
        x: the map: in the dtype of the products or, with tiles of 4, in the residual dtype of bf16 models.
        packed: the filters.
        add: a map of the size and dtype of the result, or None.
        slope: of negative values: 0 for a ReLU, 1 for no activation.
        dtype: output dtype: that of x, or, from bf16, the residual dtype.
    """
    x = x.contiguous()
    y = empty(*x.shape[:3], packed.outputs, dtype=dtype or x.dtype)
    assert packed.takes(x) and 0 <= slope <= 1, (x.shape, x.dtype, packed.inputs, slope)
    assert add is None or (add.shape == y.shape and add.dtype == y.dtype), (y.shape, y.dtype)
    if not y.numel():  # no image: a detector that found nothing has no maps for its masks
        return y
    add = None if add is None else add.contiguous()
    batch, height, width, channels = x.shape
    call(
        *(_LIBRARIES[packed.tile], f"convolve_3x3_by_{packed.tile}", x.dtype, y.dtype),
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
