"""Linear attention by a low-rank projection of keys and values along the sequence."""

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.layouts import Layout
from vitrail.parts.attend import Attend, check_heads, merge_heads, split_heads
from vitrail.shapes import Tokens


def zero_padding(x: Tensor, grid: Layout) -> Tensor:
    """Set padded tokens of `(B, ..., N, d)` to 0.

    Example:
        >>> from vitrail.layouts import TokenSequence
        >>> layout = TokenSequence(3, lengths=torch.tensor([2]))
        >>> zero_padding(torch.ones(1, 1, 3, 1), layout).flatten().tolist()
        [1.0, 1.0, 0.0]
    """
    bias = grid.key_padding(x)  # (B, 1, 1, N), -inf for padding
    if bias is None:
        return x
    real = bias.isfinite().transpose(-2, -1)  # (B, 1, N, 1)
    return x.masked_fill(~real.view(x.shape[0], *[1] * (x.ndim - 3), -1, 1), 0.0)  # not len(x): it fixes a trace


class LinformerAttention(nn.Module):
    """Attention to r projected keys instead of N: `softmax(q (E k)^T / sqrt(d)) (F v)`, E and F of r rows.

    "Linformer: Self-Attention with Linear Complexity", section 4, equation 7, projections shared by the heads. Time and
    memory grow with N r. Exact if E and F are the identity (r = N); otherwise an approximation that is learned: E and
    F belong to the length, so a shorter text uses their first columns and a longer one is refused. Padded tokens are
    left out of the projections. It cannot be causal, since a projected key mixes all tokens.

    Args:
        dim: channels C.
        num_heads: heads h.
        max_length: columns of the projections, the largest length.
        rank: rows r of the projections.

    Raises:
        VitrailError: (in `forward`) if a text is longer than the projections.
    """

    def __init__(self, dim: int, num_heads: int, max_length: int, rank: int = 128):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project_k = nn.Parameter(torch.randn(rank, max_length) * rank**-0.5)
        self.project_v = nn.Parameter(torch.randn(rank, max_length) * rank**-0.5)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the tokens through r projected keys and values."""
        n, longest = x.shape[1], self.project_k.shape[1]
        if n > longest:
            raise VitrailError(f"The input has {n} tokens, and Linformer's projections have {longest}. Truncate it.")
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        k = self.project_k[:, :n].to(k.dtype) @ zero_padding(k, grid)  # (r, N) (B, h, N, d) -> (B, h, r, d)
        v = self.project_v[:, :n].to(v.dtype) @ zero_padding(v, grid)
        return self.proj(merge_heads(self.attend(q, k, v)))
