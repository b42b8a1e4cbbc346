"""A stage: entry, blocks, exit. `(x, grid) -> (x, grid)`."""

from collections.abc import Iterable

from torch import Tensor, nn

from vitrail.layouts import Layout
from vitrail.parts.merging import NoMerging
from vitrail.shapes import Tokens


class Stage(nn.Module):
    """Blocks on one grid, between an entry and an exit that may change the grid.

    Args:
        blocks: each `(x, grid) -> x`.
        entry: `(x, grid) -> (x, grid)`, before the first block; the identity by default.
        exit: `(x, grid) -> (x, grid)`, after the last block; the identity by default.
    """

    def __init__(self, blocks: Iterable[nn.Module], entry: nn.Module | None = None, exit: nn.Module | None = None):
        super().__init__()
        self.entry = entry or NoMerging()
        self.blocks = nn.ModuleList(blocks)
        self.exit = exit or NoMerging()

    def forward(self, x: Tokens, grid: Layout) -> tuple[Tensor, Layout]:
        """Run entry, blocks and exit in order."""
        x, grid = self.entry(x, grid)
        for block in self.blocks:
            x = block(x, grid)
        return self.exit(x, grid)
