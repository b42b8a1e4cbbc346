"""Tokens attend within their window; windows shift from block to block."""

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend, check_heads, merge_heads, split_heads
from vitrail.parts.positions import NoPosition, RelativePositionBias
from vitrail.parts.windows import PadThenRoll
from vitrail.shapes import Tokens


class WindowAttention(nn.Module):
    """Multi-head self-attention within `w x w` windows of the grid.

    y = W_o concat_h softmax(q_h k_h^T / sqrt(d) + B_h) v_h, for the tokens of each window

    Swin Transformer, section 3.2. Any grid works, without state: the cut is made anew for each map.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        window_size: side w of a window, in cells.
        shift: cells that the windows are shifted by (Swin: w // 2 in every other block, else 0).
        qkv_bias: whether the projection of queries, keys and values has a bias.
        cut: how maps that are no multiple of the window are cut.
        position: how position reaches the scores; by default a relative position bias.

    Example:
        >>> import torch
        >>> mixer = WindowAttention(32, num_heads=2, window_size=4, shift=2)
        >>> mixer(torch.zeros(2, 5 * 9, 32), Grid(5, 9)).shape
        torch.Size([2, 45, 32])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int = 0,
        qkv_bias: bool = True,
        cut: type[PadThenRoll] = PadThenRoll,
        position: NoPosition | None = None,
    ):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.window_size, self.shift, self.cut = num_heads, window_size, shift, cut
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.position = position or RelativePositionBias(num_heads, (window_size, window_size))
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells of each window; the grid must have no prefix."""
        cut = self.cut.of(grid, self.window_size, self.shift)
        within = Grid(*cut.window)
        q, k, v = split_heads(self.qkv(cut.split(grid.cells(x))), self.num_heads)  # (B, windows, h, n, d)
        q, k = self.position.rotate(q, k, within)
        bias = cut.separate(self.position.bias(q, within), like=q)
        windows = self.proj(merge_heads(self.attend(q, k, v, bias)))  # (B, windows, n, C)
        return cut.join(windows).flatten(1, 2)  # (B, H, W, C) -> (B, N, C)

    def slots(self, grid: Grid) -> Tensor:
        """Say which tokens meet in one window, `(windows, n)`; -1 is padding."""
        return self.cut.of(grid, self.window_size, self.shift).slots()
