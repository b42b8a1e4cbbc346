"""Tokens hear of their neighbours by the plainest of means: an average."""

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from vitrail.grid import Grid
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class Pooling(nn.Module):
    """The mean of each cell's neighbourhood, less the cell itself.

    y_i = mean_{j in N(i)} x_j - x_i

    "MetaFormer Is Actually What You Need for Vision", equation 4. The cell is subtracted because the block's residual
    adds it; the mean is over cells that exist, so a constant map gives zero up to its border.

    Args:
        size: odd side of the neighbourhood, in cells.

    Example:
        >>> import torch
        >>> Pooling()(torch.tensor([[[3.0], [6.0], [0.0]]]), Grid(1, 3)).flatten().tolist()
        [1.5, -3.0, 3.0]
    """

    def __init__(self, size: int = 3):
        super().__init__()
        self.size = size

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix each cell with its neighbours; the grid must have no prefix."""
        pooled = avg_pool2d(to_map(x, grid), self.size, stride=1, padding=self.size // 2, count_include_pad=False)
        return to_tokens(pooled)[0] - x
