"""Cross-covariance attention: channels attend to channels over all tokens."""

import torch
from torch import nn
from torch.nn.functional import normalize

from vitrail.layouts import Layout
from vitrail.parts.attend import check_heads, merge_heads, split_heads
from vitrail.shapes import Tokens


class CrossCovarianceAttention(nn.Module):
    """Attention between the channels of each head; its cost grows linearly with the tokens.

    y_h = softmax(tau_h q_h k_h^T) v_h, all (d, N), with q and k of unit length over the tokens

    "XCiT: Cross-Covariance Image Transformers", section 3.2, equation 2. Its maps are d x d, so tokens have no map; the
    influence of tokens on each other is a Jacobian.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.

    Example:
        >>> from vitrail.grid import Grid
        >>> CrossCovarianceAttention(8, num_heads=2)(torch.randn(2, 6, 8), Grid(2, 3)).shape
        torch.Size([2, 6, 8])
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the channels of each head."""
        q, k, v = (part.mT for part in split_heads(self.qkv(x), self.num_heads))  # (B, h, d, N) each
        scores = normalize(q, dim=-1) @ normalize(k, dim=-1).mT * self.temperature  # (B, h, d, d)
        return self.proj(merge_heads((scores.softmax(-1).to(v.dtype) @ v).mT))
