"""Tokens attend within their window; windows shift from block to block."""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.kernels.window import window
from vitrail.kernels.window.reference import cut as cut_groups
from vitrail.parts.attend import Attend, check_heads, merge_heads, split_heads
from vitrail.parts.positions import NoPosition, RelativePositionBias
from vitrail.parts.window_partition import PadThenRoll
from vitrail.shapes import Tokens


class WindowAttend(Attend):
    """Softmax attention within groups of tokens, without parameters; no token has to be moved.

    Args:
        num_heads: heads h.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.num_heads = num_heads

    def forward(
        self, qkv: Tokens, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor
    ) -> Tensor:
        """Mix the values of the tokens of each group: `(B, N, C)`.

        Args:
            qkv: queries, keys and values of each token, `(B, N, 3 C)`.
            padding: those of padding, `(3 C,)`; None is zeros.
            bias: addends to the scores, `(K, h or 1, n, n)`, of which each group has one.
            mask_index: which of them, `(G,)`.
            token_index: which token sits in each place of each group, `(G, n)`; -1 is padding.
        """
        return window(qkv, padding, bias, mask_index, token_index, self.num_heads)

    def operands(
        self, qkv: Tokens, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries, keys and values `(B, G, h, n, d)`, and the bias of each group."""
        return *cut_groups(qkv, padding, token_index, self.num_heads), None if bias is None else bias[mask_index]


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
        cut: how a map is cut into windows, above all one that is no multiple of them.
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
        self.attend = WindowAttend(num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells of each window; the grid must have no prefix."""
        cut = self.cut.of(grid, self.window_size, self.shift)
        qkv = turn(self.qkv(x), self.num_heads, self.position, grid)
        q, _, _ = split_heads(qkv, self.num_heads)
        bias = cut.bias_plus_mask(self.position.bias(q, Grid(*cut.window)), like=q)
        # Padding is zero before the projection, so after it there is the projection's bias.
        mixed = self.attend(qkv, self.qkv.bias, bias, cut.mask_index(x.device), cut.token_index(x.device))
        return self.proj(mixed)

    def token_index(self, grid: Grid) -> Tensor:
        """Return the tokens of each window, `(windows, n)`; -1 is padding."""
        return self.cut.of(grid, self.window_size, self.shift).token_index()


def turn(qkv: Tokens, num_heads: int, position: NoPosition, grid: Grid) -> Tensor:
    """Apply rotary position embeddings to queries and keys of a `(B, N, 3 C)` projection.

    Without rotation the input is returned without a copy.
    """
    q, k, v = split_heads(qkv, num_heads)
    turned = position.rotate(q, k, grid)
    if all(new is old for new, old in zip(turned, (q, k), strict=True)):
        return qkv
    return torch.cat([merge_heads(part) for part in (*turned, v)], dim=-1)
