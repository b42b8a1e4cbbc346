"""Residual Swin Transformer block (RSTB) of SwinIR: a stage of blocks and a convolution, with a skip connection."""

from collections.abc import Iterable

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class ResidualStage(nn.Module):
    """Blocks on one grid, then a convolution of their map, added to the input of the stage.

    y = x + conv(blocks(x))

    "SwinIR: Image Restoration Using Swin Transformer", section 3.1, equations 5 and 6.

    Args:
        blocks: each `(x, grid) -> x`.
        conv: `(B, C, h, w) -> (B, C, h, w)`.

    Example:
        >>> import torch
        >>> stage = ResidualStage([], nn.Conv2d(8, 8, 3, padding=1))
        >>> x, grid = stage(torch.zeros(2, 15, 8), Grid(3, 5))
        >>> x.shape
        torch.Size([2, 15, 8])
    """

    def __init__(self, blocks: Iterable[nn.Module], conv: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.conv = conv

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Run the blocks and the convolution, and add the input."""
        y = x
        for block in self.blocks:
            y = block(y, grid)
        return x + to_tokens(self.conv(to_map(y, grid)))[0], grid


def single_conv(dim: int) -> nn.Conv2d:
    """Return the 3 x 3 convolution of `1conv`.

    Example:
        >>> import torch
        >>> single_conv(8)(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """
    return nn.Conv2d(dim, dim, 3, padding=1)


def bottleneck_conv(dim: int) -> nn.Sequential:
    """Return the three convolutions of `3conv` through a quarter of the channels, LeakyReLU (0.2) between them.

    Example:
        >>> import torch
        >>> bottleneck_conv(8)(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
    )
