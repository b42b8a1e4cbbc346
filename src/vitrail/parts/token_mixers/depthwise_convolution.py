"""Tokens mixed by one filter for each channel."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class DepthwiseConvolution(nn.Module):
    """Depthwise convolution with zero padding: each channel is mixed over a `k x k` neighborhood by its own filter.

    y_c[i] = b_c + sum_{j in N(i)} w_c[j - i] x_c[j]

    "A ConvNet for the 2020s", section 2.5.

    Args:
        dim: channels C.
        kernel_size: odd side k of the filters.

    Example:
        >>> import torch
        >>> DepthwiseConvolution(8)(torch.zeros(2, 15, 8), Grid(3, 5)).shape
        torch.Size([2, 15, 8])
    """

    def __init__(self, dim: int, kernel_size: int = 7):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix each cell with its neighbours; the grid must have no prefix."""
        return to_tokens(self.conv(to_map(x, grid)))[0]
