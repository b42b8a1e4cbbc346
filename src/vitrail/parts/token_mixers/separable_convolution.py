"""Tokens mixed by a depthwise convolution between two pointwise layers."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.activations import StarReLU
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class SeparableConvolution(nn.Module):
    """Inverted separable convolution: expand, activate, convolve each channel alone, project.

    y = W_2 dwconv(act(W_1 x)), without biases

    "MetaFormer Baselines for Vision", equation 4 (ConvFormer), after MobileNetV2's inverted bottleneck.

    Args:
        dim: channels C.
        ratio: hidden channels as a multiple of C.
        kernel_size: odd side k of the depthwise filters; the map is padded by k // 2 zeros on every side.

    Example:
        >>> import torch
        >>> SeparableConvolution(8)(torch.zeros(2, 15, 8), Grid(3, 5)).shape
        torch.Size([2, 15, 8])
    """

    def __init__(self, dim: int, ratio: int = 2, kernel_size: int = 7):
        super().__init__()
        hidden = ratio * dim
        self.expand = nn.Linear(dim, hidden, bias=False)
        self.act = StarReLU()
        self.depthwise = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden, bias=False)
        self.project = nn.Linear(hidden, dim, bias=False)
        nn.init.trunc_normal_(self.depthwise.weight, std=0.02)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix each cell with its neighbours; the grid must have no prefix."""
        hidden = self.act(self.expand(x))
        return self.project(to_tokens(self.depthwise(to_map(hidden, grid)))[0])
