"""A stage: enter it, then pass its blocks. `(x, grid) -> (x, grid)`."""

from collections.abc import Iterable

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.merging import NoMerging
from vitrail.shapes import Tokens


class Stage(nn.Module):
    """Blocks on one grid, behind an entry that may change the grid.

    Args:
        blocks: each `(x, grid) -> x`.
        entry: `(x, grid) -> (x, grid)`, before the first block; by default nothing changes.
    """

    def __init__(self, blocks: Iterable[nn.Module], entry: nn.Module | None = None):
        super().__init__()
        self.entry = entry or NoMerging()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Enter, then pass the blocks in order."""
        x, grid = self.entry(x, grid)
        for block in self.blocks:
            x = block(x, grid)
        return x, grid
