"""Every token attends to the tokens of another sequence."""

from torch import Tensor, nn

from vitrail.layouts import Layout, TokenSequence
from vitrail.parts.attend import Attend, check_heads, merge_heads
from vitrail.shapes import Tokens


class CrossAttention(nn.Module):
    """Multi-head attention to the memory of the layout, such as the output of an encoder.

    y = W_o concat_h softmax(q_h k_h^T / sqrt(d)) v_h, with q = W_q x and (k, v) = W_kv memory

    "Attention Is All You Need", section 3.2.3. With `layout.cache` the keys and values of the memory are computed once.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        memory_dim: channels of the memory; C by default.
        attend: leaf that computes the attention; by default softmax attention over the whole memory.

    Example:
        >>> import torch
        >>> layout = TokenSequence(3, memory=torch.randn(2, 7, 16), memory_lengths=torch.tensor([7, 4]))
        >>> CrossAttention(16, num_heads=2)(torch.randn(2, 3, 16), layout).shape
        torch.Size([2, 3, 16])
    """

    def __init__(self, dim: int, num_heads: int, memory_dim: int | None = None, attend: Attend | None = None):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(memory_dim or dim, 2 * dim)
        self.attend = attend or Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the memory into each token; padded tokens of the memory get no attention."""
        assert isinstance(grid, TokenSequence) and grid.memory is not None, "cross-attention needs layout.memory"
        memory = grid.memory
        k, v = self._keys(memory) if grid.cache is None else grid.cache.memory(self, lambda: self._keys(memory))
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)  # (B, N, C) -> (B, h, N, d)
        return self.proj(merge_heads(self.attend(q, k, v, grid.memory_padding(q))))

    def _keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.kv(memory).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)  # (B, M, 2C) -> 2 x (B, M, h, d)
        return k.transpose(-3, -2), v.transpose(-3, -2)
