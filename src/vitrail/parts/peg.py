"""Conditional positions: each cell learns its place from its neighbours."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.shapes import Tokens


class PEG(nn.Module):
    """Position encoding generator: a depthwise convolution of the map, added to it; prefix tokens pass.

    y = x + DWConv_k(x), zeros around the map

    "Conditional Positional Encodings for Vision Transformers", section 3.2. The zeros matter: they mark the border,
    from which absolute positions spread. The convolution has a bias, as in the authors' code of Twins.

    Args:
        dim: channels C.
        kernel_size: odd side k of the filters.

    Example:
        >>> import torch
        >>> PEG(8)(torch.zeros(2, 1 + 12, 8), Grid(3, 4, prefix=1)).shape
        torch.Size([2, 13, 8])
    """

    def __init__(self, dim: int, kernel_size: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add each cell's position."""
        cells = grid.cells(x).permute(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)
        return grid.replace_cells(x, (cells + self.conv(cells)).permute(0, 2, 3, 1))
