"""Prefix tokens attend to all tokens; cells do not move."""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend, check_heads, merge_heads
from vitrail.shapes import Tokens


class ClassAttention(nn.Module):
    """Multi-head attention whose queries are the prefix tokens alone; the result is zero for the cells.

    y = W_o concat_h softmax(q_h k_h^T / sqrt(d)) v_h, q of the prefix, k and v of all tokens

    "Going deeper with Image Transformers", section 3.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.

    Example:
        >>> y = ClassAttention(8, num_heads=2)(torch.randn(2, 5, 8), Grid(2, 2, prefix=1))
        >>> y.shape, bool((y[:, 1:] == 0).all())
        (torch.Size([2, 5, 8]), True)
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Update the prefix."""
        q = self.q(x[:, : grid.prefix]).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, h, prefix, d)
        k, v = self.kv(x).unflatten(-1, (2, self.num_heads, -1)).unbind(2)  # (B, N, h, d) each
        prefix = self.proj(merge_heads(self.attend(q, k.transpose(1, 2), v.transpose(1, 2))))
        return torch.cat([prefix, prefix.new_zeros(x.shape[0], grid.tokens - grid.prefix, x.shape[2])], dim=1)

    def token_index(self, grid: Grid) -> Tensor:
        """Return the tokens that are queries, in one group: `(1, prefix)`."""
        return torch.arange(grid.prefix)[None]

    def keys(self, grid: Grid) -> Tensor:
        """Return the tokens that are keys, in one group: `(1, N)`."""
        return torch.arange(grid.tokens)[None]
