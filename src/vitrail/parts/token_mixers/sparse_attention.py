"""Causal attention to a fixed sparse pattern: the own block, and a summary of every block before."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.layouts import Layout
from vitrail.parts.attend import Attend, check_heads, merge_heads, split_heads
from vitrail.shapes import Tokens


class FixedSparseAttention(nn.Module):
    """Causal attention in which query i sees its block up to i, and the last c tokens of each block before.

    j <= i, and j // l = i // l or j mod l >= l - c

    "Generating Long Sequences with Sparse Transformers", section 4.2 ("fixed"), both patterns in one head. Exact for
    that pattern: equal to full attention with the other pairs masked, and to causal attention if l >= N. With l near
    sqrt(N) time and memory grow with N^1.5.

    Args:
        dim: channels C.
        num_heads: heads h.
        block: length l of a block.
        summary: tokens c at the end of each block that all later blocks see.
    """

    def __init__(self, dim: int, num_heads: int, block: int = 32, summary: int = 4):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.block, self.summary = num_heads, block, min(summary, block)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix each token with its block and the summaries before; padding comes last, so no real token sees it."""
        n, size = x.shape[1], self.block
        qkv = split_heads(self.qkv(pad(x, (0, 0, 0, -n % size))), self.num_heads)
        q, k, v = (part.unflatten(-2, (-1, size)) for part in qkv)  # (B, h, N, d) -> (B, h, blocks, l, d)
        k, v = (torch.cat([part, self._summaries(part)], dim=-2) for part in (k, v))
        mixed = self.attend(q, k, v, self._bias(q)).flatten(-3, -2)  # (B, h, blocks, l, d) -> (B, h, N, d)
        return self.proj(merge_heads(mixed[..., :n, :]))

    def _summaries(self, x: Tensor) -> Tensor:
        """Return the last c tokens of all blocks to every block, `(B, h, blocks, blocks * c, d)`."""
        last = x[..., -self.summary :, :].flatten(-3, -2)
        return last.unsqueeze(-3).expand(*last.shape[:-2], x.shape[-3], *last.shape[-2:])

    def _bias(self, q: Tensor) -> Tensor:
        """Return `(blocks, l, l + blocks * c)`: causal in the block, and only summaries of earlier blocks."""
        blocks, size = q.shape[-3:-1]
        own = torch.ones(size, size, dtype=torch.bool, device=q.device).tril().expand(blocks, size, size)
        index = torch.arange(blocks, device=q.device)
        earlier = (index[None] < index[:, None]).repeat_interleave(self.summary, dim=1)  # (blocks, blocks * c)
        seen = torch.cat([own, earlier[:, None].expand(blocks, size, earlier.shape[1])], dim=-1)
        return torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -torch.inf)
