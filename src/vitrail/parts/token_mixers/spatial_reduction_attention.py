"""Every token attends to a reduced map: the scores of N queries and N / r^2 keys."""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.attend import Attend, check_heads, merge_heads
from vitrail.parts.spatial_reduction import NoReduction
from vitrail.shapes import Tokens


class SpatialReductionAttention(nn.Module):
    """Multi-head attention of all tokens over the keys and values of a reduced map.

    y = W_o concat_h softmax(q_h k_h^T / sqrt(d)) v_h, with q = W_q x and k, v = W_kv SR(x)

    "Pyramid Vision Transformer", section 3.3, equations 1 to 5.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        reduction: SR, `(x, grid) -> (B, M, C)`; by default every token is a key.
        qkv_bias: whether the projections of queries, keys and values have a bias.

    Example:
        >>> from vitrail.parts.spatial_reduction import ConvReduction
        >>> mixer = SpatialReductionAttention(32, num_heads=2, reduction=ConvReduction(32, ratio=4))
        >>> mixer(torch.zeros(2, 9 * 8, 32), Grid(9, 8)).shape
        torch.Size([2, 72, 32])
    """

    def __init__(self, dim: int, num_heads: int, reduction: NoReduction | None = None, qkv_bias: bool = True):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.reduction = reduction or NoReduction()
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the tokens."""
        q = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, N, C) -> (B, h, N, d)
        kv = self.kv(self.reduction(x, grid)).unflatten(2, (2, self.num_heads, -1))  # (B, M, 2, h, d)
        k, v = kv.permute(2, 0, 3, 1, 4)
        return self.proj(merge_heads(self.attend(q, k, v)))

    def token_index(self, grid: Grid) -> Tensor:
        """Return the tokens of each attention group, `(groups, n)`: all of them, in one group."""
        return torch.arange(grid.tokens)[None]

    def coverage(self, grid: Grid) -> Tensor:
        """Return the share of each token in each key, `(M, N)`; rows sum to one."""
        return self.reduction.coverage(grid)
