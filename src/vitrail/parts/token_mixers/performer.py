"""Linear attention by random features of the softmax kernel (FAVOR+)."""

import torch
from torch import Tensor, nn

from vitrail.layouts import Layout
from vitrail.parts.attend import check_heads, merge_heads, split_heads
from vitrail.parts.token_mixers.linformer import zero_padding
from vitrail.shapes import Tokens


class PerformerAttention(nn.Module):
    """Attention by positive orthogonal random features: `phi(q) (phi(k)^T v) / (phi(q) sum phi(k))`.

    phi(x) = exp(W x' - |x'|^2 / 2) / sqrt(m), x' = x / d^(1/4), so that E[phi(q) . phi(k)] = exp(q . k / sqrt(d))

    "Rethinking Attention with Performers", section 2.3 (positive features, lemma 1) and 2.4 (orthogonal rows). Time and
    memory grow with N m. An unbiased estimate of the kernel: the error shrinks with 1 / sqrt(m) and grows quickly with
    the length of queries and keys. The features are stored with the weights, so outputs are reproducible.

    Args:
        dim: channels C.
        num_heads: heads h.
        features: random features m.
    """

    features: Tensor

    def __init__(self, dim: int, num_heads: int, features: int = 256):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.register_buffer("features", orthogonal_features(features, dim // num_heads))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the tokens through m features."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        q, k = positive_features(q, self.features, (-1,)), positive_features(k, self.features, (-2, -1))
        k = zero_padding(k, grid)
        sums = q @ k.sum(dim=-2, keepdim=True).transpose(-2, -1)  # (B, h, N, 1)
        mixed = q @ (k.transpose(-2, -1) @ v.to(k.dtype)) / sums  # (B, h, N, m) (B, h, m, d)
        return self.proj(merge_heads(mixed.to(x.dtype)))


def orthogonal_features(count: int, dim: int) -> Tensor:
    """Draw `(count, dim)` Gaussian rows that are orthogonal in blocks of `dim`.

    LAPACK fixes the signs of Q by its first columns, so Q alone is not uniform and the estimate would be biased (as in
    the paper's code); the signs of the diagonal of R make it uniform ("How to generate random matrices", section 5).

    Example:
        >>> rows = orthogonal_features(4, 4)
        >>> bool(((rows @ rows.T).fill_diagonal_(0).abs() < 1e-4).all())
        True
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(count, dim)
    blocks = [_rotation(dim) for _ in range(-(-count // dim))]
    lengths = torch.randn(count, dim).norm(dim=1, keepdim=True)  # of Gaussian rows, which the rotation loses
    return torch.cat(blocks)[:count] * lengths


def _rotation(dim: int) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(dim, dim))
    return (q * r.diagonal().sign()).T


def positive_features(x: Tensor, features: Tensor, over: tuple[int, ...]) -> Tensor:
    """Return `phi(x)` of shape `(*B, N, m)` in fp32, up to a factor that the quotient cancels.

    Args:
        x: queries or keys `(*B, N, d)`.
        features: rows W, `(m, d)`.
        over: dimensions that share the factor exp(-max): each query has its own, all keys of a head share one.
    """
    x = x.float() * x.shape[-1] ** -0.25
    exponent = x @ features.T.float() - x.square().sum(dim=-1, keepdim=True) / 2
    return (exponent - exponent.amax(dim=over, keepdim=True).detach()).exp() + 1e-6
