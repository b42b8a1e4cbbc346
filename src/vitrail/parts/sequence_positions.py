"""Positions of sequences: sinusoids, a sliced table, rotation, linear biases."""

from math import log2

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.parts.positions import NoPosition
from vitrail.shapes import Bias, Heads, Tokens


class SinusoidalPosition(nn.Module):
    """Sines and cosines of each position, added to the tokens; any length.

    p[t, 2i] = sin(t / 10000^(2i/C)), p[t, 2i+1] = cos(t / 10000^(2i/C))

    "Attention Is All You Need", section 3.5.

    Args:
        dim: channels C, an even number.

    Example:
        >>> x, _ = SinusoidalPosition(4)(torch.zeros(1, 2, 4), TokenSequence(2))
        >>> x[0, 0].tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(self, dim: int):
        super().__init__()
        if dim % 2:
            raise VitrailError(f"Sinusoidal positions need an even number of channels, got {dim}.")
        self.dim = dim

    def forward(self, x: Tokens, layout: TokenSequence) -> tuple[Tensor, TokenSequence]:
        """Add the sinusoids of each token's position."""
        places = torch.arange(layout.start, layout.start + x.shape[1], device=x.device)
        return x + self.table(_angles(places, self.dim)).to(x.dtype), layout

    def table(self, angles: Tensor) -> Tensor:
        """Turn angles `(N, C/2)` into sinusoids `(N, C)`, sine and cosine by turns."""
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (N, C/2, 2) -> (N, C)


class SplitSinusoidalPosition(SinusoidalPosition):
    """The same with all sines first, then all cosines, as Marian and tensor2tensor order the channels."""

    def table(self, angles: Tensor) -> Tensor:
        """Turn angles `(N, C/2)` into sinusoids `(N, C)`."""
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _angles(places: Tensor, dim: int, base: float = 10000.0) -> Tensor:
    """Return `places / base^(2i/dim)` as `(N, dim/2)`, in fp64 and rounded once, so far positions stay exact."""
    rates = base ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=places.device) / dim)
    return (places.double()[:, None] * rates).remainder(2 * torch.pi).float()


class SequencePosition(nn.Module):
    """A learned vector for each position, added to the tokens; the table is sliced, never resized.

    "Convolutional Sequence to Sequence Learning", section 3.1; the positions of BERT and GPT-2.

    Args:
        dim: channels C.
        capacity: rows of the table, the largest length.

    Raises:
        VitrailError: (in `forward`) if a sequence is longer than the table.

    Example:
        >>> SequencePosition(8, capacity=4)(torch.zeros(1, 5, 8), TokenSequence(5))
        Traceback (most recent call last):
            ...
        vitrail.errors.VitrailError: The input has 5 tokens, and this model has positions for 4. Truncate the input.
    """

    def __init__(self, dim: int, capacity: int):
        super().__init__()
        self.table = nn.Parameter(torch.empty(capacity, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tokens, layout: TokenSequence) -> tuple[Tensor, TokenSequence]:
        """Add each token's position."""
        end = layout.start + x.shape[1]
        if end > len(self.table):
            raise VitrailError(
                f"The input has {end} tokens, and this model has positions for {len(self.table)}. Truncate the input."
            )
        return x + self.table[layout.start : end], layout


class RotaryPosition(NoPosition):
    """Rotation of queries and keys by an angle that grows with their position.

    (q_2i, q_2i+1) turns by t * base^(-2i/d), so q_s . k_t depends on s - t only

    "RoFormer: Enhanced Transformer with Rotary Position Embedding", section 3.2.2: neighbouring channels form a pair.

    Args:
        head_dim: width d of a head, an even number.
        base: 10000 in the paper.
    """

    def __init__(self, head_dim: int, base: float = 10000.0):
        super().__init__()
        if head_dim % 2:
            raise VitrailError(f"Rotary positions need heads of an even width, got {head_dim}.")
        self.head_dim, self.base = head_dim, base

    def rotate(self, q: Tensor, k: Tensor, grid: TokenSequence) -> tuple[Tensor, Tensor]:
        """Turn queries and keys by their positions; keys in a cache were turned when they came."""
        places = torch.arange(grid.start, grid.start + q.shape[-2], device=q.device)
        angles = _angles(places, self.head_dim, self.base)
        sin, cos = angles.sin().to(q.dtype), angles.cos().to(q.dtype)
        return _turn(q, sin, cos), _turn(k, sin, cos)


def _turn(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)  # (*B, h, N, d) -> 2 x (*B, h, N, d/2)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class ALiBi(NoPosition):
    """A penalty that grows linearly with the distance between query and key.

    b[i, j] = -m_h |i - j|, m_h = 2^(-8 h / H) for head h = 1..H

    "Train Short, Test Long: Attention with Linear Biases", section 3. If H is no power of two, the paper's code takes
    the slopes of the next smaller power and fills up with every other slope of the next larger one.

    Args:
        num_heads: heads H.

    Example:
        >>> ALiBi(2).bias(torch.zeros(1, 2, 2, 4), TokenSequence(2))[0].tolist()
        [[-0.0, -0.0625], [-0.0625, -0.0]]
    """

    slopes: Tensor

    def __init__(self, num_heads: int):
        super().__init__()
        self.register_buffer("slopes", torch.tensor(_slopes(num_heads)), persistent=False)

    def bias(self, q: Heads, grid: TokenSequence) -> Bias | None:
        """Return `(H, N, M)`; with a cache the keys start at position 0."""
        end = grid.start + q.shape[-2]
        queries = torch.arange(grid.start, end, device=q.device)
        keys = torch.arange(0 if grid.cache is not None else grid.start, end, device=q.device)
        return -self.slopes[:, None, None].to(q.dtype) * (queries[:, None] - keys).abs().to(q.dtype)


def _slopes(num_heads: int) -> list[float]:
    power = 2 ** int(log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    if power == num_heads:
        return slopes
    return slopes + _slopes(2 * power)[0::2][: num_heads - power]
