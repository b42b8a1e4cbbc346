"""Every token attends to itself and to the tokens before it."""

from torch import nn

from vitrail.layouts import Layout, TokenSequence
from vitrail.parts.attend import merge_heads, split_heads
from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.positions import NoPosition
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.shapes import Tokens


class CausalAttention(SelfAttention):
    """Multi-head self-attention over the tokens so far, with a key-value cache.

    y_i = W_o concat_h softmax(q_i k_{<=i}^T / sqrt(d) + bias) v_{<=i}

    "Attention Is All You Need", section 3.2.3; "Language Models are Unsupervised Multitask Learners", section 2.3.
    With `layout.cache` the keys of earlier tokens come from the cache, so a new token costs one token.
    Sequences are padded on the right: a real token never sees padding.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h.
        position: rotation of queries and keys, and addend to the scores.
        attend: leaf that computes the attention; causal by default.
        qk_norm: `(q, k) -> (q, k)` before the position.

    Example:
        >>> import torch
        >>> from vitrail.parts.key_value_cache import KeyValueCache
        >>> mixer, x, cache = CausalAttention(16, num_heads=2), torch.randn(1, 5, 16), KeyValueCache(5)
        >>> whole = mixer(x, TokenSequence(5))
        >>> steps = [mixer(x[:, i : i + 1], TokenSequence(1, start=i, cache=cache)) for i in range(5)]
        >>> torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-6)
        True
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        position: NoPosition | None = None,
        attend: CausalAttend | None = None,
        qk_norm: nn.Module | None = None,
    ):
        super().__init__(dim, num_heads, position=position, attend=attend or CausalAttend(), qk_norm=qk_norm)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix each token with those before it."""
        assert isinstance(grid, TokenSequence), grid
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        q, k = self.qk_norm(q, k)
        q, k = self.position.rotate(q, k, grid)
        if grid.cache is not None:
            k, v = grid.cache.append(self, k, v, grid.start)
        # Right padding is later than every real query, so the causal mask already hides it; a padded query keeps
        # at least the first key.
        bias = self.position.bias(q, grid)
        return self.proj(merge_heads(self.attend(q, k, v, bias)))
