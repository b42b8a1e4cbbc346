"""Cosine attention: scores do not grow with the length of queries and keys."""

from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class CosineNorm(nn.Module):
    """Unit queries and keys, and a learned scale for each head: scores are `cos(q, k) / tau`.

    q -> s sqrt(d) q / |q|, k -> k / |k|, with s = 1 / tau = exp(min(log_scale, log 100)); attention divides by sqrt(d).

    "Swin Transformer V2", section 3.2, "Scaled cosine attention": tau is at least 0.01. The scales begin at 10.

    Args:
        num_heads: heads h.

    Example:
        >>> q, k = CosineNorm(2)(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4))
        >>> bool(((q @ k.mT / 4**0.5).abs() <= 10.001).all())
        True
    """

    max_log_scale = log(100.0)

    def __init__(self, num_heads: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((num_heads, 1, 1), log(10.0)))

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise `(*B, h, N, d)` queries and keys, and scale the queries."""
        scale = self.log_scale.clamp(max=self.max_log_scale).exp() * q.shape[-1] ** 0.5
        return normalize(q, dim=-1) * scale.to(q.dtype), normalize(k, dim=-1)
