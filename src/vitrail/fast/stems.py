"""The stem of a residual network in its fast form."""

import torch
from torch import Tensor, nn

from vitrail.fast.bottlenecks import TOGETHER, packed, scale_of
from vitrail.fast.kept import Kept
from vitrail.grid import Grid
from vitrail.native.bottleneck import Window, convolve, pool, settle
from vitrail.native.residual import RESIDUAL
from vitrail.parts.convolutions import SameMaxPool2d
from vitrail.parts.embeddings import ConvStem
from vitrail.parts.norms import GroupNormReLU
from vitrail.shapes import Image


class FastStem(nn.Module):
    """Convolve, normalise while pooling, pool; some pictures at a time: `images -> (x, grid)`."""

    def __init__(self, stem: ConvStem, window: Window, dtype: torch.dtype):
        super().__init__()
        self.window = window
        self.conv = packed(stem.conv, dtype)  # pyright: ignore[reportArgumentType]
        self.norm = scale_of(stem.norm) if isinstance(stem.norm, GroupNormReLU) else None

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Turn pictures into the tokens of a coarse map."""
        images = images.to(RESIDUAL[self.conv.panels.dtype])
        tokens, size = [], images.shape[2:]
        places = [self.conv.window.places(side)[0] for side in size]
        together = max(1, TOGETHER // (places[0] * places[1] * self.conv.outputs * images.element_size()))
        for part in images.contiguous().split(together):
            x, size, moments = convolve(part, (images.shape[2], images.shape[3]), self.conv)
            x, size = pool(x, size, self.window, None if self.norm is None else settle(moments, self.norm))
            tokens.append(x)
        return torch.cat(tokens), Grid(*size)


def fast_stem(stem: ConvStem, dtype: torch.dtype) -> FastStem:
    """Return the fast form of a residual network's stem.

    Raises:
        Kept: another convolution, norm or pooling.
    """
    window = _pooling(stem.pool)
    if type(stem.norm) not in (nn.Identity, GroupNormReLU):
        raise Kept(f"its norm is {type(stem.norm).__name__}")
    if window.same and isinstance(stem.norm, nn.Identity):
        raise Kept("the lowest value lies beyond its map, which is zero only after a ReLU")
    return FastStem(stem, window, dtype)


def _pooling(pool: nn.Module) -> Window:
    """Read a pooling with zeros beyond the map, or after a ReLU with the lowest value, which is the same."""
    if type(pool) is SameMaxPool2d:
        return Window(pool.kernel_size, pool.stride, same=True)
    if isinstance(pool, nn.Sequential) and [type(part) for part in pool] == [nn.ConstantPad2d, nn.MaxPool2d]:
        border, largest = pool
        sides = largest.kernel_size, largest.stride, largest.padding, largest.dilation
        if border.value == 0 and border.padding == (1, 1, 1, 1) and sides == (3, 2, 0, 1):
            return Window(3, 2)
    raise Kept(f"{type(pool).__name__} has no compiled form")
