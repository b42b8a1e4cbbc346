"""Linformer on images: keys and values projected along the places of one grid."""

from math import ceil

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.layouts import Layout
from vitrail.parts.spatial_reduction import shares
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.shapes import Tokens


class GridLinformerAttention(LinformerAttention):
    """Attention to r regions of a grid instead of its N cells: `softmax(q (E k)^T / sqrt(d)) (F v)`.

    "Linformer: Self-Attention with Linear Complexity", section 4, equation 7. E and F begin as means over the cells of
    regions, and prefix tokens stay keys of their own; with as many regions as cells that is full attention. They
    belong to the places of one grid, so another one is refused.

    Args:
        dim: channels C.
        num_heads: heads h.
        grid: the only grid that it can mix.
        rank: most rows r of the projections.

    Raises:
        VitrailError: the rank has no place for prefix tokens and one region; or (in `forward`) another grid.

    Example:
        >>> mixer = GridLinformerAttention(12, num_heads=3, grid=Grid(4, 4, prefix=1), rank=5)
        >>> mixer.project_k.shape, mixer(torch.zeros(2, 17, 12), Grid(4, 4, prefix=1)).shape
        (torch.Size([5, 17]), torch.Size([2, 17, 12]))
    """

    def __init__(self, dim: int, num_heads: int, grid: Grid, rank: int = 64):
        regions = region_means(grid, rank)
        super().__init__(dim, num_heads, grid.tokens, len(regions))
        self.grid = grid
        with torch.no_grad():
            self.project_k.copy_(regions)
            self.project_v.copy_(regions)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the tokens through projected keys and values."""
        if grid != self.grid:
            raise VitrailError(
                f"This Linformer projects a grid of {self.grid.h} x {self.grid.w}, and the image gives {grid}.\n"
                "Resize the image to the size of the model, or create the model with image_size=... and train it there."
            )
        return super().forward(x, grid)

    def token_index(self, grid: Grid) -> Tensor:
        """Return the tokens of each attention group: all of them, in one group."""
        return torch.arange(grid.tokens)[None]

    def coverage(self, grid: Grid) -> Tensor:
        """Return the share of each token in each row of the projection of keys, `(r, N)`; rows sum to one."""
        shares = self.project_k.detach().abs()
        return shares / shares.sum(1, keepdim=True).clamp_min(1e-12)


def region_means(grid: Grid, rank: int) -> Tensor:
    """Return the means over at most `rank` regions, prefix tokens each on their own: `(r, N)`.

    Example:
        >>> region_means(Grid(1, 4, prefix=1), rank=3)
        tensor([[1.0000, 0.0000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.5000, 0.5000]])
    """
    left = rank - grid.prefix
    if left < 1:
        raise VitrailError(f"Rank {rank} has no place for {grid.prefix} prefix tokens and one region.")
    rows, columns = _regions(grid, left)
    cells = torch.kron(*(shares(_spans(count, n), n) for count, n in ((rows, grid.h), (columns, grid.w))))
    return torch.block_diag(torch.eye(grid.prefix), cells)


def _regions(grid: Grid, most: int) -> tuple[int, int]:
    """Return rows and columns of the most regions, as square as the grid, that are no more than `most`."""
    choices = [(rows, min(most // rows, grid.w)) for rows in range(1, min(most, grid.h) + 1)]
    return max(choices, key=lambda one: (one[0] * one[1], -abs(one[0] / grid.h - one[1] / grid.w)))


def _spans(count: int, n: int) -> list[tuple[int, int]]:
    return [(i * n // count, ceil((i + 1) * n / count)) for i in range(count)]
