"""Convolutions on tokens: the map that a convolution wants is a view of them, for nothing.

`(B, N, C)` tokens in memory are a `channels_last` map, the layout that convolutions are fastest in; so no step here
moves memory, and none may start from channels-first memory (`channels_last` brings images into the layout once).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, layer_norm, max_pool2d, pad

from vitrail.grid import Grid, to_grid
from vitrail.shapes import Image, Tokens

ChannelsFirst = Image
"""A map `(B, C, h, w)` as convolutions see it."""


def channels_last(images: Image) -> Tensor:
    """Lay images out channels last in memory; their shape stays `(B, C, Y, X)`.

    Example:
        >>> channels_last(torch.zeros(1, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
        True
    """
    return images.contiguous(memory_format=torch.channels_last)


def to_map(x: Tokens, grid: Grid) -> Tensor:
    """View tokens without prefix as the `(B, C, h, w)` map that convolutions take.

    Example:
        >>> to_map(torch.zeros(2, 6, 8), Grid(2, 3)).shape
        torch.Size([2, 8, 2, 3])
    """
    assert grid.prefix == 0, grid
    return grid.cells(x).permute(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)


def to_tokens(cells: ChannelsFirst) -> tuple[Tensor, Grid]:
    """View a `(B, C, h, w)` map as tokens and their grid.

    Example:
        >>> tokens, grid = to_tokens(torch.zeros(2, 8, 2, 3))
        >>> tokens.shape, grid
        (torch.Size([2, 6, 8]), Grid(h=2, w=3, prefix=0))
    """
    return to_grid(cells.permute(0, 2, 3, 1))  # (B, C, h, w) -> (B, h, w, C)


def standardise(weight: Tensor, eps: float = 1e-8) -> Tensor:
    """Give each filter mean 0 and variance 1.

    w = (w - mean(w)) / sqrt(var(w) + eps), over the inputs of each output channel

    "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization". eps is timm's;
    BiT's authors add 1e-10, and those of ViT's hybrids add 1e-5 to the deviation. The norm that follows a convolution
    makes the three agree almost.

    Example:
        >>> weight = standardise(torch.arange(8.0).reshape(2, 4, 1, 1))
        >>> weight.mean((1, 2, 3)).tolist()
        [0.0, 0.0]
    """
    filters = weight.flatten(1)  # (out, in, k, k) -> (out, in k k)
    return layer_norm(filters, filters.shape[1:], eps=eps).view_as(weight)


class StdConv2d(nn.Conv2d):
    """A convolution without bias whose filters are standardised whenever it is used.

    Args:
        in_channels: channels before.
        out_channels: channels after.
        kernel_size: side k of the filters; the map is padded by k // 2 on every side.
        stride: step between two places.

    Example:
        >>> StdConv2d(8, 16, kernel_size=3, stride=2)(torch.zeros(1, 8, 5, 6)).shape
        torch.Size([1, 16, 3, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, input: ChannelsFirst) -> Tensor:
        """Convolve."""
        return conv2d(input, standardise(self.weight), None, self.stride, self.padding)


class SameStdConv2d(StdConv2d):
    """A standardised convolution that pads as TensorFlow does: n becomes ceil(n / stride), the odd zero goes last."""

    def forward(self, input: ChannelsFirst) -> Tensor:
        """Pad, then convolve."""
        padded = pad(input, same_padding(input, self.kernel_size[0], self.stride[0]))
        return conv2d(padded, standardise(self.weight), None, self.stride)


class SameMaxPool2d(nn.Module):
    """The largest of each `k x k` window, padded as TensorFlow does.

    Args:
        kernel_size: side k of the window.
        stride: step between two windows.
    """

    def __init__(self, kernel_size: int, stride: int):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, cells: ChannelsFirst) -> Tensor:
        """Pad with -inf, then take the maximum."""
        padded = pad(cells, same_padding(cells, self.kernel_size, self.stride), value=-torch.inf)
        return max_pool2d(padded, self.kernel_size, self.stride)


def same_padding(cells: ChannelsFirst, kernel_size: int, stride: int) -> tuple[int, int, int, int]:
    """Return left, right, top and bottom padding after which a side n becomes ceil(n / stride).

    Example:
        >>> same_padding(torch.zeros(1, 1, 5, 6), kernel_size=3, stride=2)
        (0, 1, 1, 1)
    """
    top, left = (max((n + stride - 1) // stride * stride - stride + kernel_size - n, 0) for n in cells.shape[-2:])
    return left // 2, left - left // 2, top // 2, top - top // 2
