"""Entering a stage: the grid gets coarser and the channels more. `(x, grid) -> (x, grid)`."""

from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.grid import Grid, may_be_nonzero, to_grid
from vitrail.layouts import Layout
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class NoMerging(nn.Module):
    """Enter a stage as you are."""

    def forward(self, x: Tokens, grid: Layout) -> tuple[Tensor, Layout]:
        """Change nothing."""
        return x, grid


class PatchMerging(nn.Module):
    """Four neighbours become one token.

    y = W norm(concat(x[0,0], x[1,0], x[0,1], x[1,1])), the index being (row, column) within each 2 x 2 square

    Swin Transformer, section 3.1. The order of the four is the authors' (down before right); mmpretrain's differs and
    its weights need a permutation. An odd side is padded with zeros.

    Args:
        dim: channels C before.
        out_dim: channels after.

    Example:
        >>> import torch
        >>> x, grid = PatchMerging(8, 16)(torch.zeros(2, 15, 8), Grid(3, 5))
        >>> x.shape, grid
        (torch.Size([2, 6, 16]), Grid(h=2, w=3, prefix=0))
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Merge; the grid must have no prefix."""
        return to_grid(self.reduction(self.norm(concat_squares(x, grid))))


class PostNormPatchMerging(nn.Module):
    """Four neighbours become one token, and the norm follows the reduction: `norm(W concat(...))`.

    "Swin Transformer V2", the authors' code. Order and padding are those of `PatchMerging`.

    Args:
        dim: channels C before.
        out_dim: channels after.

    Example:
        >>> import torch
        >>> x, grid = PostNormPatchMerging(8, 16)(torch.zeros(2, 15, 8), Grid(3, 5))
        >>> x.shape, grid
        (torch.Size([2, 6, 16]), Grid(h=2, w=3, prefix=0))
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Merge; the grid must have no prefix."""
        return to_grid(self.norm(self.reduction(concat_squares(x, grid))))


def concat_squares(x: Tokens, grid: Grid) -> Tensor:
    """Concatenate the channels of each 2 x 2 square of cells: `(B, ceil(H / 2), ceil(W / 2), 4 C)`.

    Example:
        >>> import torch
        >>> concat_squares(torch.zeros(1, 15, 8), Grid(3, 5)).shape
        torch.Size([1, 2, 3, 32])
    """
    cells = grid.cells(x)
    if may_be_nonzero(grid.h % 2, grid.w % 2):
        cells = pad(cells, (0, 0, 0, grid.w % 2, 0, grid.h % 2))
    squares = cells.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H/2, 2 down, W/2, 2 right, C)
    return squares.permute(0, 1, 3, 4, 2, 5).flatten(3)  # -> (B, H/2, W/2, 4C), right slower than down


class ConvMerging(nn.Module):
    """A strided convolution: neighbours that overlap become one token.

    "MetaFormer Is Actually What You Need for Vision", table 1 (3 x 3, stride 2; no norm in the code).

    Args:
        dim: channels C before.
        out_dim: channels after.
        kernel_size: side k of the filters; the map is padded by k // 2 zeros on every side.
        stride: step between two tokens.

    Example:
        >>> import torch
        >>> x, grid = ConvMerging(8, 16)(torch.zeros(2, 15, 8), Grid(3, 5))
        >>> x.shape, grid
        (torch.Size([2, 6, 16]), Grid(h=2, w=3, prefix=0))
    """

    def __init__(self, dim: int, out_dim: int, kernel_size: int = 3, stride: int = 2):
        super().__init__()
        self.reduction = nn.Conv2d(dim, out_dim, kernel_size, stride, padding=kernel_size // 2)
        nn.init.trunc_normal_(self.reduction.weight, std=0.02)
        nn.init.zeros_(self.reduction.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Merge; the grid must have no prefix."""
        return to_tokens(self.reduction(to_map(x, grid)))


class NormedConvMerging(nn.Module):
    """A 3 x 3 convolution of stride 2 without bias, then a norm.

    "Neighborhood Attention Transformer". Filters begin as PyTorch draws them, as the authors' do.

    Args:
        dim: channels C before.
        out_dim: channels after.

    Example:
        >>> import torch
        >>> x, grid = NormedConvMerging(8, 16)(torch.zeros(2, 15, 8), Grid(3, 5))
        >>> x.shape, grid
        (torch.Size([2, 6, 16]), Grid(h=2, w=3, prefix=0))
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.reduction = nn.Conv2d(dim, out_dim, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Merge; the grid must have no prefix."""
        tokens, grid = to_tokens(self.reduction(to_map(x, grid)))
        return self.norm(tokens), grid


class PreNormConvMerging(nn.Module):
    """A norm, then a strided convolution.

    "MetaFormer Baselines for Vision" (3 x 3 with padding 1) and "A ConvNet for the 2020s", section 2.6 (2 x 2).

    Args:
        norm: norm of the tokens before.
        dim: channels C before.
        out_dim: channels after.
        kernel_size: side k of the filters, a step of 2 apart; k = 2 drops the last row or column of an odd map.
        padding: zeros on every side of the map.

    Raises:
        VitrailError: if the padded map is smaller than one filter.

    Example:
        >>> import torch
        >>> x, grid = PreNormConvMerging(nn.LayerNorm(8), 8, 16, 3, padding=1)(torch.zeros(2, 15, 8), Grid(3, 5))
        >>> x.shape, grid
        (torch.Size([2, 6, 16]), Grid(h=2, w=3, prefix=0))
    """

    def __init__(self, norm: nn.Module, dim: int, out_dim: int, kernel_size: int, padding: int = 0):
        super().__init__()
        self.norm = norm
        self.reduction = nn.Conv2d(dim, out_dim, kernel_size, stride=2, padding=padding)
        nn.init.trunc_normal_(self.reduction.weight, std=0.02)
        nn.init.zeros_(self.reduction.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        """Normalise and merge; the grid must have no prefix."""
        self.check(grid)
        return to_tokens(self.reduction(to_map(self.norm(x), grid)))

    def check(self, grid: Grid) -> None:
        """Check that the padded map has room for one filter.

        Raises:
            VitrailError: it has not.
        """
        smallest = int(self.reduction.kernel_size[0]) - 2 * int(self.reduction.padding[0])
        if min(grid.h, grid.w) < smallest:
            raise VitrailError(
                f"A stage needs a map of at least {smallest} x {smallest} cells to halve it, got {grid.h} x {grid.w}."
                "\nEnlarge the image."
            )
