"""Tokens mixed by a fixed random matrix."""

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.shapes import Tokens


class RandomMixing(nn.Module):
    """Mix tokens by a random row-stochastic matrix that is drawn once and never learned.

    y = softmax(R) x, R ~ U(0, 1)^{N x N}, rows normalised

    "MetaFormer Baselines for Vision", equation 3 (RandFormer). The matrix is a buffer: part of the state dict, not a
    parameter.

    Args:
        grid: the only grid that it can mix.

    Raises:
        VitrailError: if the tokens are on another grid.

    Example:
        >>> RandomMixing(Grid(2, 3))(torch.ones(5, 6, 8), Grid(2, 3)).shape
        torch.Size([5, 6, 8])
    """

    matrix: Tensor

    def __init__(self, grid: Grid):
        super().__init__()
        self.grid = grid
        self.register_buffer("matrix", torch.rand(grid.tokens, grid.tokens).softmax(dim=-1))

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the tokens."""
        if grid != self.grid:
            raise VitrailError(
                f"This model mixes tokens on a grid of {self.grid.h} x {self.grid.w} and the image gives "
                f"{grid.h} x {grid.w}.\nIts random matrix has one entry for each pair of tokens.\n"
                "Resize the image to the size of the model, or create the model with image_size=... and train it there."
            )
        return self.matrix @ x
