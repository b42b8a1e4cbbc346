"""Positions as sines and cosines of relative coordinates, projected to the width of the tokens."""

from math import pi

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.shapes import Tokens


class FourierPosition(nn.Module):
    """Add a projection of sines and cosines of each cell's row and column, relative to the size of the map.

    x + W concat(f(y / h), f(x / w)) + b, f(t)_2i = sin(2 pi t / 10000^(2i / F)), f(t)_2i+1 = cos(same)

    Rows and columns count from 1. "XCiT: Cross-Covariance Image Transformers", section 3.4. Any grid works.

    Args:
        dim: channels C.
        features: features F for rows, and as many for columns.

    Example:
        >>> FourierPosition(8)(torch.zeros(2, 6, 8), Grid(2, 3))[0].shape
        torch.Size([2, 6, 8])
    """

    def __init__(self, dim: int, features: int = 32):
        super().__init__()
        self.features = features
        self.proj = nn.Linear(2 * features, dim)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Add each cell's position; the grid must have no prefix."""
        rows = self.waves(grid.h, x.device)[:, None].expand(-1, grid.w, -1)
        columns = self.waves(grid.w, x.device)[None].expand(grid.h, -1, -1)
        waves = torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (N, 2 F)
        return x + self.proj(waves.to(x.dtype)), grid

    def waves(self, count: int, device: torch.device) -> Tensor:
        """Return sines (even) and cosines (odd features) for places 1 to `count`: `(count, F)`."""
        places = torch.arange(1, count + 1, device=device, dtype=torch.float32) * (2 * pi / (count + 1e-6))
        powers = torch.arange(self.features, device=device) // 2 * 2 / self.features
        angles = places[:, None] / 10000**powers
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1)
