"""Every token attends to every token."""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.layouts import Layout
from vitrail.parts.attend import Attend, NoQKNorm, add_bias, check_heads, merge_heads, split_heads
from vitrail.parts.positions import NoPosition
from vitrail.shapes import Tokens


class SelfAttention(nn.Module):
    """Multi-head self-attention over all tokens, prefix included.

    y = W_o concat_h softmax(q_h k_h^T / sqrt(d) + bias) v_h

    "Attention Is All You Need", section 3.2.2.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        qkv_bias: whether the projection of queries, keys and values has a bias.
        position: rotation of queries and keys, and addend to the scores.
        attend: leaf that computes the attention; by default softmax attention over all keys.
        qk_norm: `(q, k) -> (q, k)` before the position, such as a norm of each head or cosine attention.
        proj_bias: whether the output projection has a bias.

    Example:
        >>> SelfAttention(64, num_heads=4)(torch.zeros(2, 9, 64), Grid(3, 3)).shape
        torch.Size([2, 9, 64])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        position: NoPosition | None = None,
        attend: Attend | None = None,
        qk_norm: nn.Module | None = None,
        proj_bias: bool = True,
    ):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.position = position or NoPosition()
        self.attend = attend or Attend()
        self.qk_norm = qk_norm or NoQKNorm()
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the tokens; padded keys of the layout get no attention."""
        return self.proj(merge_heads(self.attend(*self.operands(x, grid))))

    def operands(self, x: Tokens, grid: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries, keys and values, each `(B, h, N, d)`, and the addend to the scores."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        q, k = self.qk_norm(q, k)
        # A position names the layouts it reads; which one a model has is known where it is built.
        q, k = self.position.rotate(q, k, grid)  # pyright: ignore[reportArgumentType]
        own = self.position.bias(q, grid)  # pyright: ignore[reportArgumentType]
        return q, k, v, add_bias(own, grid.key_padding(q))

    def token_index(self, grid: Grid) -> Tensor:
        """Say which tokens meet in one attention, `(groups, n)`: here all of them, in one group."""
        return torch.arange(grid.tokens)[None]
