"""Attention over all cells of a map with relative positions that look at the query, inside a residual bottleneck."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.attend import Attend, check_heads, merge_heads, split_heads
from vitrail.parts.positions import NoPosition
from vitrail.shapes import Bias, Heads, Tokens


class LargestMap(NamedTuple):
    """Rows and columns of the largest grid that has positions."""

    h: int
    w: int

    def check(self, grid: Grid) -> None:
        """Check the size of a grid.

        Raises:
            VitrailError: it is larger.
        """
        if grid.h > self.h or grid.w > self.w:
            raise VitrailError(
                f"This model has positions for a map of {self.h} x {self.w} cells and the image gives "
                f"{grid.h} x {grid.w}.\nResize the image, or create the model with image_size=... and train it there."
            )


class RelativeLogits(NoPosition):
    """Scores of each query with learned vectors of row and column offsets.

    bias[i, j] = s q_i^T (rows[y_j - y_i + H - 1] + columns[x_j - x_i + W - 1])

    "Bottleneck Transformers for Visual Recognition", section 3.1 and figure 4. The authors scale these scores as those
    of the keys (s = 1 / sqrt(d)); timm does not (s = 1).

    Args:
        head_dim: channels d of a head.
        size: rows and columns (H, W) of the largest grid.
        scale: factor s.

    Raises:
        VitrailError: if a grid is larger.
    """

    def __init__(self, head_dim: int, size: tuple[int, int], scale: float):
        super().__init__()
        self.size, self.scale = LargestMap(*size), scale
        self.rows = nn.Parameter(torch.randn(2 * size[0] - 1, head_dim) * head_dim**-0.5)
        self.columns = nn.Parameter(torch.randn(2 * size[1] - 1, head_dim) * head_dim**-0.5)

    def bias(self, q: Heads, grid: Grid) -> Bias | None:
        """Return `(B, h, N, N)` for the queries of a grid."""
        self.size.check(grid)
        q = self.scale * q.unflatten(-2, (grid.h, grid.w))  # (B, h, H, W, d)
        rows = torch.einsum("bhywd,ykd->bhywk", q, offsets(self.rows, self.size[0], grid.h))
        columns = torch.einsum("bhywd,wkd->bhywk", q, offsets(self.columns, self.size[1], grid.w))
        return (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)  # (B, h, N, H, W) -> (B, h, N, N)


def offsets(table: Tensor, size: int, length: int) -> Tensor:
    """Return the vector of each pair of query and key along one axis, `(length, length, d)`.

    Example:
        >>> offsets(torch.zeros(5, 8), size=3, length=3).shape
        torch.Size([3, 3, 8])
    """
    places = torch.arange(length, device=table.device)
    return table[places - places[:, None] + size - 1]


class BottleneckAttention(nn.Module):
    """Multi-head self-attention over all cells, without an output projection.

    y = concat_h softmax(q_h k_h^T / sqrt(d) + bias) v_h

    "Bottleneck Transformers for Visual Recognition", section 3.1: the 1 x 1 convolution that follows is the projection.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        position: addend to the scores.

    Example:
        >>> BottleneckAttention(8, 2, RelativeLogits(4, (2, 3), 0.5))(torch.randn(2, 6, 8), Grid(2, 3)).shape
        torch.Size([2, 6, 8])
    """

    def __init__(self, dim: int, num_heads: int, position: NoPosition | None = None):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.position = position or NoPosition()
        self.attend = Attend()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells; the grid must have no prefix."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        return merge_heads(self.attend(q, k, v, self.position.bias(q, grid)))

    def token_index(self, grid: Grid) -> Tensor:
        """Return the tokens of each attention group, `(groups, n)`: all of them, in one group."""
        return torch.arange(grid.tokens)[None]
