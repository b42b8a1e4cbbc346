"""Non-local blocks: every cell of a map reads all others, in a residual branch of a convolutional network."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from vitrail.grid import Grid
from vitrail.parts.attend import Attend
from vitrail.parts.attention_bottlenecks import AttentionBottleneck
from vitrail.parts.convolutions import to_map, to_tokens
from vitrail.parts.spatial_reduction import shares
from vitrail.shapes import Tokens


class NonLocalAttention(nn.Module):
    """Embedded Gaussian: `y_i = sum_j softmax_j(theta(x_i)^T phi(p_j) / sqrt(d)) g(p_j)`, p the 2 x 2 maxima of x.

    "Non-local Neural Networks", section 3.2, equation 4 and section 3.3 (subsampling). The authors' code pools before
    phi and g and scales the scores; the paper writes the pooling after them, and no scale. One head.

    Args:
        dim: channels C; theta, phi and g have d = C / 2, and so has the result.

    Example:
        >>> NonLocalAttention(8)(torch.randn(2, 5 * 6, 8), Grid(5, 6)).shape
        torch.Size([2, 30, 4])
    """

    num_heads = 1

    def __init__(self, dim: int):
        super().__init__()
        self.theta, self.phi, self.g = (nn.Linear(dim, dim // 2) for _ in range(3))
        self.attend: nn.Module = Attend()

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Mix the cells; the grid must have no prefix."""
        pooled = to_tokens(max_pool2d(to_map(x, grid), 2, ceil_mode=True))[0]
        q, k, v = self.theta(x), self.phi(pooled), self.g(pooled)
        return self.attend(q[:, None], k[:, None], v[:, None])[:, 0]

    def token_index(self, grid: Grid) -> Tensor:
        """Return the tokens of each attention group: all of them, in one group."""
        return torch.arange(grid.tokens)[None]

    def coverage(self, grid: Grid) -> Tensor:
        """Return the share of each cell in each key, `(M, N)`."""
        rows, columns = (shares([(i, i + 2) for i in range(0, n, 2)], n) for n in (grid.h, grid.w))
        return torch.kron(rows, columns)


class DotProduct(nn.Module):
    """y_i = 1 / M sum_j (q_i^T k_j) v_j.

    "Non-local Neural Networks", equation 5, computed as q (k^T v): linear in the number of cells.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values."""
        return q @ (k.mT @ v) / k.shape[-2]


class Concatenation(nn.Module):
    """y_i = 1 / M sum_j relu(w^T concat(q_i, k_j)) v_j.

    "Non-local Neural Networks", equation 6.

    Args:
        dim: channels d of a query.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.of_query, self.of_key = nn.Linear(dim, 1, bias=False), nn.Linear(dim, 1, bias=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values."""
        return (self.of_query(q) + self.of_key(k).mT).relu() @ v / k.shape[-2]


class NonLocalDotProduct(NonLocalAttention):
    """Non-local mixing by dot products; see `DotProduct`."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.attend = DotProduct()


class NonLocalConcatenation(NonLocalAttention):
    """Non-local mixing by a layer on pairs; see `Concatenation`."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.attend = Concatenation(dim // 2)


class NonLocalBlock(nn.Module):
    """x + norm(W y), y the non-local mixture; the norm starts at zero, so that the block starts as the identity.

    "Non-local Neural Networks", section 3.3, equation 6 and section 4.1.

    Args:
        dim: channels C.
        token_mixer: `(x, grid) -> y` with C / 2 channels.
    """

    def __init__(self, dim: int, token_mixer: NonLocalAttention):
        super().__init__()
        self.token_mixer = token_mixer
        self.proj, self.norm = nn.Linear(dim // 2, dim), nn.BatchNorm2d(dim)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Add the branch; the grid must have no prefix."""
        return x + to_tokens(self.norm(to_map(self.proj(self.token_mixer(x, grid)), grid)))[0]


class NonLocalBottleneck(AttentionBottleneck):
    """A bottleneck of convolutions, then a non-local block: `(x, grid) -> x`.

    Args:
        dim: channels.
        token_mixer: the mixer of the block.
        drop_path: probability of dropping the branch of the bottleneck of one sample in training.
    """

    def __init__(self, dim: int, token_mixer: NonLocalAttention, drop_path: float = 0.0):
        super().__init__(dim, dim, drop_path=drop_path)
        self.non_local = NonLocalBlock(dim, token_mixer)

    @property
    def token_mixer(self) -> nn.Module:
        """The mixer over the whole map."""
        return self.non_local.token_mixer

    def forward(self, x: Tokens, grid: Grid) -> Tensor:
        """Convolve, then mix all cells."""
        return self.non_local(super().forward(x, grid), grid)
