"""Window attention of Swin V2: cosine scores, and a position bias that is a function of the offset."""

import torch
from torch import Tensor

from vitrail.grid import Grid
from vitrail.parts.attend import merge_heads, split_heads
from vitrail.parts.cosine import CosineNorm
from vitrail.parts.log_spaced_position import LogSpacedPositionBias
from vitrail.parts.query_value_bias import QueryValueBias
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import PadThenRoll
from vitrail.shapes import Tokens


class CosineWindowAttention(WindowAttention):
    """Multi-head cosine attention within `w x w` windows of the grid.

    y = W_o concat_h softmax(cos(q_h, k_h) / tau_h + B_h) v_h, for the tokens of each window

    "Swin Transformer V2", sections 3.2 and 3.3.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        window_size: side w of a window, in cells.
        shift: cells that the windows are shifted by.
        pretrained_window: side of the window that the weights were pre-trained with; 0 is `window_size`.
        cut: how a map is cut into windows.

    Example:
        >>> mixer = CosineWindowAttention(32, num_heads=2, window_size=4, shift=2)
        >>> mixer(torch.zeros(2, 5 * 9, 32), Grid(5, 9)).shape
        torch.Size([2, 45, 32])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int = 0,
        pretrained_window: int = 0,
        cut: type[PadThenRoll] = PadThenRoll,
    ):
        position = LogSpacedPositionBias(num_heads, window_size, pretrained_window)
        super().__init__(dim, num_heads, window_size, shift, cut=cut, position=position)
        self.qkv = QueryValueBias(dim)
        self.qk_norm = CosineNorm(num_heads)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells of each window; the grid must have no prefix."""
        cut = self.cut.of(grid, self.window_size, self.shift)
        qkv = self._normalise(self.qkv(x))
        padding = self._normalise(self.qkv.bias[None, None])[0, 0]  # padding is zero before the projection
        q, _, _ = split_heads(qkv, self.num_heads)
        bias = cut.bias_plus_mask(self.position.bias(q, Grid(*cut.window)), like=q)
        return self.proj(self.attend(qkv, padding, bias, cut.mask_index(x.device), cut.token_index(x.device)))

    def _normalise(self, qkv: Tokens) -> Tensor:
        """Apply the norm of queries and keys to a `(B, N, 3 C)` projection."""
        q, k, v = split_heads(qkv, self.num_heads)
        return torch.cat([merge_heads(part) for part in (*self.qk_norm(q, k), v)], dim=-1)
