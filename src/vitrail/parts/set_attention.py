"""Attention blocks of sets: SAB, ISAB and pooling by attention (PMA)."""

import torch
from torch import Tensor, nn

from vitrail.layouts import Layout
from vitrail.parts.attend import Attend, check_heads, merge_heads


class SetAttention(nn.Module):
    """Multi-head attention block (MAB) of a set to another one.

    H = Q + concat_h softmax(Q_h K_h^T / sqrt(C)) V_h;  y = norm(norm(H) + relu(W norm(H) + b)), Q = W_q x

    "Set Transformer: A Framework for Attention-based Permutation-Invariant Neural Networks", Lee et al., 2019,
    equations 6 and 7, as in the authors' code: scores are divided by the root of all channels, not of a head's, and the
    residual is the projected query.

    Args:
        query_dim: channels of x.
        key_dim: channels of the set that is read.
        dim: channels C of the output.
        num_heads: heads h.
        norm: makes a norm of C channels; the authors' experiments have none.
    """

    def __init__(self, query_dim: int, key_dim: int, dim: int, num_heads: int, norm: type[nn.Module] = nn.Identity):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.scale = num_heads**-0.5  # Attend divides by sqrt(C / h)
        self.q, self.k, self.v = nn.Linear(query_dim, dim), nn.Linear(key_dim, dim), nn.Linear(key_dim, dim)
        self.attend = Attend()
        self.norm1, self.proj, self.norm2 = norm(dim), nn.Linear(dim, dim), norm(dim)

    def forward(self, x: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
        """Read a set `(B, M, D)`; `bias` is added to the scores, -inf for padded keys."""
        q, k, v = (self._heads(part) for part in (self.q(x), self.k(keys), self.v(keys)))
        y = self.norm1(merge_heads(q + self.attend(q * self.scale, k, v, bias)))
        return self.norm2(y + self.proj(y).relu())

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)  # (B, N, C) -> (B, h, N, d)


class SetSelfAttention(nn.Module):
    """Set attention block (SAB): each element reads the set, `MAB(x, x)`.

    "Set Transformer", equation 8.

    Args:
        inputs: channels of x.
        dim: channels C of the output.
        num_heads: heads.
        norm: as in `SetAttention`.
    """

    def __init__(self, inputs: int, dim: int, num_heads: int, norm: type[nn.Module] = nn.Identity):
        super().__init__()
        self.block = SetAttention(inputs, inputs, dim, num_heads, norm)

    def forward(self, x: Tensor, grid: Layout) -> Tensor:
        """Mix the elements."""
        return self.block(x, x, grid.key_padding(x))


class InducedSetAttention(nn.Module):
    """Induced set attention block (ISAB): a few learned points read the set, then each element reads them.

    H = MAB(I, x);  y = MAB(x, H)

    "Set Transformer", equations 9 and 10: linear in the size of the set.

    Args:
        inputs: channels of x.
        dim: channels C of the output.
        num_heads: heads.
        points: number of inducing points.
        norm: as in `SetAttention`.
    """

    def __init__(self, inputs: int, dim: int, num_heads: int, points: int, norm: type[nn.Module] = nn.Identity):
        super().__init__()
        self.inducing = nn.Parameter(torch.empty(points, dim))
        nn.init.xavier_uniform_(self.inducing)
        self.read = SetAttention(dim, inputs, dim, num_heads, norm)
        self.write = SetAttention(inputs, dim, dim, num_heads, norm)

    def forward(self, x: Tensor, grid: Layout) -> Tensor:
        """Mix the elements by way of the inducing points."""
        inducing = self.inducing.to(x.dtype).expand(x.shape[0], -1, -1)
        return self.write(x, self.read(inducing, x, grid.key_padding(x)))


class AttentionPooledSet(nn.Module):
    """Pooling by multi-head attention (PMA): learned seeds read the set, `MAB(S, x)`.

    "Set Transformer", equation 11. The authors' code leaves out the feed-forward layer before it, and so do we.

    Args:
        dim: channels C.
        num_heads: heads.
        seeds: number of outputs.
        norm: as in `SetAttention`.
    """

    def __init__(self, dim: int, num_heads: int, seeds: int, norm: type[nn.Module] = nn.Identity):
        super().__init__()
        self.seeds = nn.Parameter(torch.empty(seeds, dim))
        nn.init.xavier_uniform_(self.seeds)
        self.block = SetAttention(dim, dim, dim, num_heads, norm)

    def forward(self, x: Tensor, grid: Layout) -> Tensor:
        """Return `(B, seeds, C)`."""
        return self.block(self.seeds.to(x.dtype).expand(x.shape[0], -1, -1), x, grid.key_padding(x))
