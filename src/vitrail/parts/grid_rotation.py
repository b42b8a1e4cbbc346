"""Rotary positions of image cells: half of the pairs of a head turn by the row, half by the column."""

import torch
from torch import Tensor

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.positions import NoPosition
from vitrail.shapes import Heads


class GridRotation(NoPosition):
    """Rotation of queries and keys by their cell, on the scale of the grid of pre-training; the prefix stays.

    (q_2p, q_2p+1) turns by t base^(-4 p / d), t = r y / h for the first d / 4 pairs p, r x / w for the others

    "EVA-02: A Visual Representation for Neon Genesis", section 2.1, after RoFormer. A larger grid interpolates: its
    places are scaled to the `reference` grid.

    Args:
        head_dim: width d of a head, a multiple of 4.
        reference: side r of the grid of pre-training, in cells.
        base: 10000.

    Raises:
        VitrailError: if the heads have no such width.
    """

    def __init__(self, head_dim: int, reference: int, base: float = 10000.0):
        super().__init__()
        if head_dim % 4:
            raise VitrailError(f"Rotary positions of images need heads of a width in steps of 4, got {head_dim}.")
        self.head_dim, self.reference, self.base = head_dim, reference, base

    def rotate(self, q: Heads, k: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Turn queries and keys."""
        bands = self.base ** -(torch.arange(self.head_dim // 4, device=q.device) * 4 / self.head_dim)
        rows, columns = (
            torch.arange(n, device=q.device)[:, None] / n * self.reference * bands for n in (grid.h, grid.w)
        )
        size = (grid.h, grid.w, self.head_dim // 4)
        angles = torch.cat([rows[:, None].expand(size), columns[None].expand(size)], dim=-1).flatten(0, 1)  # (N, d / 2)
        sin, cos = angles.sin().to(q.dtype), angles.cos().to(q.dtype)
        return turn_cells(q, sin, cos, grid), turn_cells(k, sin, cos, grid)


def turn_cells(x: Tensor, sin: Tensor, cos: Tensor, grid: Grid) -> Tensor:
    """Rotate the pairs of channels of each cell, `(*B, h, N, d)`."""
    prefix, cells = x[..., : grid.prefix, :], x[..., grid.prefix :, :]
    even, odd = cells.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
    return torch.cat([prefix, turned], dim=-2)
