"""Fused stem of a residual network, for CPU inference."""

import torch
from torch import Tensor, nn

from vitrail.fused.bottlenecks import TOGETHER, filters_of, scale_of
from vitrail.fused.unsupported import NotConverted, Seats, check_parts
from vitrail.grid import Grid
from vitrail.native.bottleneck import Window, convolve, finalize, pack_filters, pool
from vitrail.native.dtypes import RESIDUAL
from vitrail.parts.convolutions import SameMaxPool2d, SameStdConv2d, StdConv2d
from vitrail.parts.embeddings import ConvStem
from vitrail.parts.norms import GroupNormReLU
from vitrail.shapes import Image

STEM_SEATS: Seats = {
    "conv": (StdConv2d, SameStdConv2d),
    "norm": (nn.Identity, GroupNormReLU),
    "pool": (SameMaxPool2d, nn.Sequential),
}

LARGEST = 65280.0
"""Largest number that bf16 and fp16 both represent: a larger one would be infinite in fp16, then NaN."""


class FusedStem(nn.Module):
    """Convolve, normalise while pooling, pool; a few images at a time: `images -> (x, grid)`.

    Every block after the stem amplifies its rounding errors: most of the error of a BiT-50 in bf16 came from this
    layer, a thirtieth of its operations. So images x and filters w are split in two parts each, and an image has three
    times its channels: high(x) high(w) + low(x) high(w) + high(x) low(w).
    """

    def __init__(self, stem: ConvStem, window: Window, dtype: torch.dtype):
        super().__init__()
        self.window = window
        weight, stand = filters_of(stem.conv)
        if dtype != torch.float32:
            high, low = halves(weight, dtype)
            weight = torch.cat([high, high, low], 1)
        self.conv = pack_filters(weight, stand, dtype)
        self.norm = scale_of(stem.norm) if isinstance(stem.norm, GroupNormReLU) else None

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convert images to the tokens of a coarse map."""
        dtype, tokens, size = self.conv.panels.dtype, [], images.shape[2:]
        places = [self.conv.window.places(side)[0] for side in size]
        together = max(1, TOGETHER // (places[0] * places[1] * self.conv.outputs * RESIDUAL[dtype].itemsize))
        for part in images.float().split(together):
            if dtype != torch.float32:
                high, low = halves(part.clamp(-LARGEST, LARGEST), dtype)
                part = torch.cat([high, low, high], 1)
            x, size, moments = convolve(part.to(RESIDUAL[dtype]), (images.shape[2], images.shape[3]), self.conv)
            x, size = pool(x, size, self.window, None if self.norm is None else finalize(moments, self.norm))
            tokens.append(x)
        return torch.cat(tokens), Grid(*size)


def halves(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Split fp32 numbers into the sum of two numbers in `dtype`, up to the square of its rounding error.

    Example:
        >>> high, low = halves(torch.tensor(1.2345678), torch.bfloat16)
        >>> high.item(), round((high + low).item(), 5)
        (1.234375, 1.23457)
    """
    high = x.to(dtype).float()
    return high, (x - high).to(dtype).float()


def fuse_stem(stem: ConvStem, dtype: torch.dtype) -> FusedStem:
    """Return the fused stem of a residual network.

    Raises:
        NotConverted: another convolution, norm or pooling.
    """
    check_parts(stem, STEM_SEATS)
    window = _pooling(stem.pool)
    if window.same and isinstance(stem.norm, nn.Identity):
        raise NotConverted("its pooling pads with the lowest value, which is zero only after a ReLU")
    return FusedStem(stem, window, dtype)


def _pooling(pool: nn.Module) -> Window:
    """Read a pooling with zeros beyond the map, or after a ReLU with the lowest value, which is the same."""
    if type(pool) is SameMaxPool2d:
        return Window(pool.kernel_size, pool.stride, same=True)
    if isinstance(pool, nn.Sequential) and [type(part) for part in pool] == [nn.ConstantPad2d, nn.MaxPool2d]:
        border, largest = pool
        sides = largest.kernel_size, largest.stride, largest.padding, largest.dilation
        if border.value == 0 and border.padding == (1, 1, 1, 1) and sides == (3, 2, 0, 1):
            return Window(3, 2)
    raise NotConverted(f"{type(pool).__name__} has no fused operation")
