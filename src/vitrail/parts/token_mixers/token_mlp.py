"""Tokens hear of each other through a linear layer over places: one weight for each pair of them."""

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.channel_mixers import MLP
from vitrail.shapes import Tokens


class TokenMLP(nn.Module):
    """An MLP over the tokens of each channel, the same for all channels.

    y_c = W_2 gelu(W_1 x_c), x_c in R^N

    "MLP-Mixer: An all-MLP Architecture for Vision", section 2, equation 1.

    Args:
        grid: the only grid that it can mix.
        hidden: width between the two layers.

    Raises:
        VitrailError: if the tokens sit on another grid.

    Example:
        >>> import torch
        >>> TokenMLP(Grid(2, 3), hidden=4)(torch.zeros(5, 6, 8), Grid(2, 3)).shape
        torch.Size([5, 6, 8])
    """

    def __init__(self, grid: Grid, hidden: int):
        super().__init__()
        self.grid = grid
        self.mlp = MLP(grid.tokens, hidden)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the tokens."""
        self.check(grid)
        return self.mlp(x.transpose(1, 2), grid).transpose(1, 2)  # (B, N, C) -> (B, C, N) and back

    def check(self, grid: Grid) -> None:
        """Refuse any other grid."""
        if grid != self.grid:
            raise VitrailError(
                f"This model mixes tokens on a grid of {self.grid.h} x {self.grid.w} and the image gives "
                f"{grid.h} x {grid.w}.\nIts token MLP holds one weight for each pair of places, so no other size has "
                "weights.\nResize the image to the size of the model, or create the model with image_size=... and "
                "train it at that size."
            )
