"""Each cell attends to the cells around it, or to those around it at a stride."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.kernels.neighborhood import neighborhood
from vitrail.kernels.neighborhood.reference import neighborhood_map
from vitrail.kernels.neighborhood.window import neighbours
from vitrail.parts.attend import Attend, check_heads
from vitrail.parts.positions import RelativePositionBias
from vitrail.shapes import Bias, FeatureMap, HeadMap, Maps, Tokens


class NeighborhoodAttend(Attend):
    """Softmax attention of each cell over its `k x k` neighbours, without parameters.

    Args:
        kernel_size: odd side k of a neighborhood, in cells.
        dilation: step between two neighbours, in cells.
    """

    def __init__(self, kernel_size: int, dilation: int):
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation

    def forward(self, q: HeadMap, k: HeadMap, v: HeadMap, bias: Bias) -> Tensor:
        """Mix the values of the neighbours of each cell.

        Args:
            q: queries `(B, H, W, h, d)`.
            k: keys.
            v: values.
            bias: addend for each offset between query and key, `((2 k - 1)^2, h)`.
        """
        return neighborhood(q, k, v, bias, self.kernel_size, self.dilation)

    def maps(self, q: HeadMap, k: HeadMap, bias: Bias) -> Maps:
        """Compute the attention probabilities, `(B, N, h, 1, k * k)`: each query is a group with keys of its own."""
        return neighborhood_map(q, k, bias, self.kernel_size, self.dilation).flatten(1, 2)[..., None, :]


class NeighborhoodAttention(nn.Module):
    """Multi-head attention of each cell over the `k x k` cells nearest to it, `dilation` cells apart.

    y_i = W_o concat_h softmax(q_i k_j^T / sqrt(d) + B_h[i - j]) v_j, j the neighbours of i

    "Neighborhood Attention Transformer" and "Dilated Neighborhood Attention Transformer". Their formula divides the sum
    of scores and bias by sqrt(d); the authors' code, which made the weights, scales the queries and adds the bias after
    that, as here. At a border the neighborhood is shifted inwards, so it always has k * k cells. A map that is too
    small for that is padded as in the authors' code: with zeros after the norm, at the right and bottom; the padding
    takes part as keys.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        kernel_size: odd side k of a neighborhood, in cells.
        dilation: step between two neighbours, in cells.

    Raises:
        VitrailError: if the heads do not share the channels evenly, or there is no such kernel or dilation.

    Example:
        >>> mixer = NeighborhoodAttention(32, num_heads=2, kernel_size=3, dilation=2)
        >>> mixer(torch.zeros(2, 7 * 4, 32), Grid(7, 4)).shape
        torch.Size([2, 28, 32])
    """

    def __init__(self, dim: int, num_heads: int, kernel_size: int = 7, dilation: int = 1):
        super().__init__()
        check_heads(dim, num_heads)
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise VitrailError(
                f"A neighborhood needs an odd kernel size from 3 up, got {kernel_size}. Published: 7, 11."
            )
        if dilation < 1:
            raise VitrailError(f"A neighborhood needs a dilation from 1 up, got {dilation}; 1 takes the nearest cells.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.position = RelativePositionBias(num_heads, (kernel_size, kernel_size))
        self.attend = NeighborhoodAttend(kernel_size, dilation)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells; the grid must have no prefix."""
        qkv = self.qkv(self._pad(grid.cells(x))).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.unbind(3)  # (B, H, W, 3, h, d) -> 3 x (B, H, W, h, d)
        mixed = self.attend(q, k, v, self.position.table)[:, : grid.h, : grid.w]
        return self.proj(mixed.flatten(3).flatten(1, 2))  # (B, H, W, h, d) -> (B, N, C)

    def token_index(self, grid: Grid) -> Tensor:
        """Return the query cell of each group, `(N, 1)`; -1 is padding."""
        cells = torch.full(self._size(grid.h, grid.w), -1)
        cells[: grid.h, : grid.w] = torch.arange(grid.tokens).reshape(grid.h, grid.w)
        return cells.reshape(-1, 1)

    def keys(self, grid: Grid) -> Tensor:
        """Say which cells each group attends to, `(N, k * k)`; -1 is padding."""
        height, width = self._size(grid.h, grid.w)
        rows, columns = (
            neighbours(length, self.attend.kernel_size, self.attend.dilation) for length in (height, width)
        )
        near = rows[:, None, :, None] * width + columns[None, :, None, :]  # (H, W, k, k)
        return self.token_index(grid)[near.flatten(2).flatten(0, 1), 0]

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns after padding."""
        least = self.attend.kernel_size * self.attend.dilation
        return max(height, least), max(width, least)

    def _pad(self, cells: FeatureMap) -> Tensor:
        (height, width), (most_rows, most_columns) = cells.shape[1:3], self._size(*cells.shape[1:3])
        extra = (0, 0, 0, most_columns - width, 0, most_rows - height)
        return pad(cells, extra) if any(extra) else cells
