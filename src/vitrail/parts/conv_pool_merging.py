"""Aggregation of NesT: convolution, norm and max pooling, across the borders of blocks."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class ConvPoolMerging(nn.Module):
    """A 3 x 3 convolution, a norm of each cell and max pooling: `pool(norm(W * x))`.

    "Nested Hierarchical Transformer: Towards Accurate, Data-Efficient and Interpretable Visual Understanding",
    section 3.1, "block aggregation": in the image plane, so that information crosses from block to block.

    Args:
        dim: channels C before.
        out_dim: channels after.
        pool: halves the map, `map -> map`.

    Example:
        >>> import torch
        >>> merging = ConvPoolMerging(8, 16, nn.MaxPool2d(3, 2, padding=1))
        >>> x, grid = merging(torch.zeros(2, 15, 8), Grid(3, 5))
        >>> x.shape, grid
        (torch.Size([2, 6, 16]), Grid(h=2, w=3, prefix=0))
    """

    def __init__(self, dim: int, out_dim: int, pool: nn.Module):
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(out_dim, eps=1e-6)
        self.pool = pool
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Merge; the grid must have no prefix."""
        cells, grid = to_tokens(self.conv(to_map(x, grid)))
        return to_tokens(self.pool(to_map(self.norm(cells), grid)))
