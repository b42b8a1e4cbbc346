"""Local patch interaction: two small depthwise convolutions."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.shapes import Tokens


class LocalPatchInteraction(nn.Module):
    """Two depthwise convolutions with GELU and BatchNorm between them.

    y = DWConv_k(BN(gelu(DWConv_k(x))))

    "XCiT: Cross-Covariance Image Transformers", section 3.3. BatchNorm comes after GELU, as in the authors' code (the
    paper names BatchNorm and GELU in this order).

    Args:
        dim: channels C.
        kernel_size: odd side k of the filters.

    Example:
        >>> import torch
        >>> LocalPatchInteraction(8)(torch.randn(2, 6, 8), Grid(2, 3)).shape
        torch.Size([2, 6, 8])
    """

    def __init__(self, dim: int, kernel_size: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.act = nn.GELU()
        self.norm = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix each cell with its neighbours; the grid must have no prefix."""
        return to_tokens(self.conv2(self.norm(self.act(self.conv1(to_map(x, grid))))))[0]
