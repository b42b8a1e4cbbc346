"""A norm as a step of an embedding, entry or exit."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.shapes import Tokens


class NormStep(nn.Module):
    """Normalise the tokens, keep the grid: `(x, grid) -> (norm(x), grid)`.

    Args:
        norm: `x -> x`.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Normalise."""
        return self.norm(x), grid
