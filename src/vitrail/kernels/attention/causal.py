"""Causal softmax attention: query i sees the keys up to its own place, aligned to the last key."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vitrail.kernels.attention.sdpa import unsupported_reason as sdpa_unsupported_reason
from vitrail.kernels.dispatch import Backend, Op
from vitrail.shapes import Heads


def causal_bias(q: Tensor, k: Tensor) -> Tensor | None:
    """Return the `(N, M)` addend that hides later keys; None if there is only one query, which sees all of them.

    b[i, j] = 0 if j <= i + M - N else -inf

    Aligned to the last key, so N new queries see M - N cached keys and themselves.

    Example:
        >>> causal_bias(torch.zeros(2, 4), torch.zeros(3, 4)).tolist()
        [[0.0, 0.0, -inf], [0.0, 0.0, 0.0]]
    """
    n, m = q.shape[-2], k.shape[-2]
    if n == 1:
        return None
    places = torch.arange(m, device=q.device)
    hidden = places > places[m - n :, None]
    return torch.zeros(n, m, dtype=q.dtype, device=q.device).masked_fill(hidden, -torch.inf)


def attend_causally(q: Heads, k: Tensor, v: Tensor) -> Tensor:
    """Mix the values of the keys that each query sees: the specification.

    Example:
        >>> q = torch.randn(1, 2, 3, 4)
        >>> attend_causally(q, q, q).shape
        torch.Size([1, 2, 3, 4])
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    bias = causal_bias(q, k)
    return (scores if bias is None else scores + bias).softmax(dim=-1) @ v


def _fused_unsupported_reason(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Return why PyTorch's fused causal attention cannot run: it aligns the triangle to the first key."""
    if 1 < q.shape[-2] != k.shape[-2]:
        return f"needs as many keys as queries, got {q.shape[-2]} queries and {k.shape[-2]} keys"
    return sdpa_unsupported_reason(q, k, v, None)


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=q.shape[-2] > 1)


causal_attention = Op(
    "causal_attention",
    [Backend("sdpa", _fused, _fused_unsupported_reason), Backend("reference", attend_causally, lambda q, k, v: None)],
)
