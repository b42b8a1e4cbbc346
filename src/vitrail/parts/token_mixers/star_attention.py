"""Attention along a ring, and through one relay node that sees all tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.layouts import Layout, TokenSequence
from vitrail.parts.token_mixers.cross_attention import CrossAttention
from vitrail.parts.token_mixers.linformer import zero_padding
from vitrail.shapes import Tokens


class StarTransformer(nn.Module):
    """Tokens that attend to their neighbours and to a relay node, which attends to all tokens, several times over.

    h_i = norm(relu(att(h_i, [h_{i-1}, h_i, h_{i+1}, e_i, s]))); s = norm(relu(att(s, [s, h_1, ..., h_n])))

    "Star-Transformer", section 3.2, equations 5 to 8, e the input and s at first its mean. 5 keys a token, so time and
    memory grow with N. Exact for this pattern; it is not an approximation of full attention: two tokens further apart
    than the depth meet only in the relay node. Outside the text there is no neighbour (the paper's code has zeros).

    Args:
        dim: channels C.
        num_heads: heads h.
        depth: rounds.
    """

    def __init__(self, dim: int, num_heads: int, depth: int = 2):
        super().__init__()
        self.ring = nn.ModuleList(CrossAttention(dim, num_heads) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        # No token reads the relay node after the last round, so that round leaves it.
        self.relay = nn.ModuleList(CrossAttention(dim, num_heads) for _ in range(depth - 1))
        self.relay_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth - 1))

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Return the tokens after all rounds."""
        batch, n = x.shape[:2]
        lengths = getattr(grid, "lengths", None)
        lengths = torch.full((batch,), n, device=x.device) if lengths is None else lengths
        relay = zero_padding(x[:, None], grid)[:, 0].sum(dim=1, keepdim=True) / lengths[:, None, None].to(x.dtype)
        inputs, order = x, _neighbours(lengths, x)
        for i, (ring, norm) in enumerate(zip(self.ring, self.norms, strict=True)):
            around = pad(x, (0, 0, 1, 1)).unfold(1, 3, 1).transpose(-2, -1)  # (B, N, 3, C)
            others = torch.stack([inputs, relay.expand_as(x)], dim=2)
            x = norm(ring_attention(ring, x, torch.cat([around, others], dim=2), order).relu())
            if i < len(self.relay):
                memory = TokenSequence(1, memory=torch.cat([relay, x], dim=1), memory_lengths=lengths + 1)
                relay = self.relay_norms[i](self.relay[i](relay, memory).relu())
        return x


def ring_attention(mixer: Any, x: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
    """Attend from each token to keys of its own.

    Args:
        mixer: weights.
        x: queries `(B, N, C)`.
        keys: `(B, N, 5, C)`: the token before, the token, the token after, the input, the relay node.
        valid: `(B, N, 5)`, which of them there are.
    """
    return own_keys_attention(mixer, x, mixer.kv(keys), valid)


def own_keys_attention(mixer: Any, x: Tensor, kv: Tensor, valid: Tensor) -> Tensor:
    """Attend from each token to its own keys and values, `(B, N, K, 2 C)`; `valid` says which there are."""
    heads = (mixer.num_heads, -1)
    q = mixer.q(x).unflatten(-1, heads)[..., None, :]  # (B, N, h, 1, d)
    k, v = (part.unflatten(-1, heads).transpose(-3, -2) for part in kv.chunk(2, dim=-1))  # (B, N, h, K, d)
    bias = torch.zeros_like(valid, dtype=x.dtype).masked_fill(~valid, -torch.inf)[:, :, None, None]
    return mixer.proj(mixer.attend(q, k, v, bias).flatten(-3))  # (B, N, h, 1, d) -> (B, N, C)


def _neighbours(lengths: Tensor, x: Tensor) -> Tensor:
    """Return `(B, N, 5)`: whether each token of x has one before and after; the other three keys always are."""
    place = torch.arange(x.shape[1], device=lengths.device).expand(x.shape[:2])
    always = torch.ones_like(place, dtype=torch.bool)
    return torch.stack([place > 0, always, place + 1 < lengths[:, None], always, always], dim=2)
