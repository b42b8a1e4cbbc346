"""Tokens mixed by retention: causal linear attention with exponential decay, in three equal forms."""

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from vitrail.layouts import Layout, TokenSequence
from vitrail.parts.attend import check_heads
from vitrail.shapes import Heads, Tokens


def decay_rates(num_heads: int, like: Tensor) -> Tensor:
    """Return the decay gamma of each head, `1 - 2^(-5 - h)`, as `(h, 1, 1)`.

    "Retentive Network: A Successor to Transformer for Large Language Models", section 2.2.

    Example:
        >>> decay_rates(2, torch.zeros(1)).flatten().tolist()
        [0.96875, 0.984375]
    """
    return 1 - 2.0 ** (-5 - torch.arange(num_heads, device=like.device, dtype=torch.float32)[:, None, None])


class ParallelRetention(nn.Module):
    """All tokens at once: `(q k^T * D) v`, with `D[n, m] = gamma^(n - m)` for `n >= m`, else 0.

    Section 2.1, equation 5, with the three normalisations of section 2.2; they scale whole rows, and the norm that
    follows removes them. The cost grows with N squared.
    """

    def forward(self, q: Heads, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values of all earlier tokens, `(B, h, N, d)`."""
        places = torch.arange(q.shape[-2], device=q.device, dtype=torch.float32)
        distance = places[:, None] - places
        decay = (decay_rates(q.shape[1], q) ** distance.clamp_min(0)).masked_fill(distance < 0, 0)  # (h, N, N)
        decay = decay / decay.sum(-1, keepdim=True).sqrt()
        scores = (q @ k.mT) * decay.to(q.dtype)
        return scores @ v / scores.detach().sum(-1, keepdim=True).abs().clamp_min(1)


class RecurrentRetention(nn.Module):
    """Token by token: `S_n = gamma S_(n-1) + k_n^T v_n`, `o_n = q_n S_n`; memory does not grow with N.

    Section 2.1, equation 6.
    """

    def forward(self, q: Heads, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values of all earlier tokens, `(B, h, N, d)`."""
        gamma = decay_rates(q.shape[1], q).to(q.dtype)
        state, out = q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1]), []
        for n in range(q.shape[-2]):
            state = gamma * state + k[:, :, n, :, None] * v[:, :, n, None]
            out.append(q[:, :, n : n + 1] @ state)
        return torch.cat(out, dim=2)


class ChunkwiseRetention(nn.Module):
    """Parallel within chunks and recurrent between them: the cost grows linearly with N.

    Section 2.1, equation 7.

    Args:
        chunk: tokens of a chunk; the last may be shorter.
    """

    def __init__(self, chunk: int = 64):
        super().__init__()
        self.chunk = chunk

    def forward(self, q: Heads, k: Tensor, v: Tensor) -> Tensor:
        """Mix the values of all earlier tokens, `(B, h, N, d)`."""
        state, out = q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1]), []
        for start in range(0, q.shape[-2], self.chunk):
            cut = slice(start, start + self.chunk)
            mixed, state = retain_chunk(q[:, :, cut], k[:, :, cut], v[:, :, cut], state)
            out.append(mixed)
        return torch.cat(out, dim=2)


def retain_chunk(q: Heads, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Mix one chunk in parallel and carry the state: `o = (q k^T * D) v + gamma^(i + 1) q S`.

    Section 2.1, equation 7.

    Args:
        q: queries of the chunk.
        k: keys.
        v: values.
        state: `(B, h, d, e)`, the sum of all earlier `k^T v`, decayed.

    Returns:
        The mixture `(B, h, n, e)` and the state after the chunk.

    Example:
        >>> q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
        >>> mixed, state = retain_chunk(q, k, v, torch.zeros(1, 2, 4, 4))
        >>> mixed.shape, state.shape
        (torch.Size([1, 2, 5, 4]), torch.Size([1, 2, 4, 4]))
    """
    gamma = decay_rates(q.shape[1], q)
    places = torch.arange(q.shape[-2], device=q.device, dtype=torch.float32)
    distance = places[:, None] - places
    decay = (gamma ** distance.clamp_min(0)).masked_fill(distance < 0, 0).to(q.dtype)
    before = (gamma ** (places[:, None] + 1)).to(q.dtype)  # decay of the state before the chunk, (h, n, 1)
    last = places[-1]
    after = (gamma ** (last - places[:, None])).to(q.dtype)  # decay to the end of the chunk
    mixed = ((q @ k.mT) * decay) @ v + before * (q @ state)
    return mixed, (gamma ** (last + 1)).to(q.dtype) * state + k.mT @ (after * v)


class Retention(nn.Module):
    """Multi-scale retention over the tokens in their order.

    y = W_o (silu(W_g x) * norm_h(retain(q_h, k_h, v_h))), q and k rotated by their position

    "Retentive Network", equation 8. As in the authors' code there are no biases, k is divided by sqrt(d), the norm of
    each head divides by the root mean square and has no weights (the paper: GroupNorm), and values may be wider than
    queries. An image is read row by row; no token sees a later one. With `layout.cache` the state of earlier tokens is
    in the cache: a new token costs the same at every length.

    Args:
        dim: channels C.
        num_heads: heads h; d = C / h is even.
        value_ratio: channels of the values as a multiple of C.
        retain: form of the computation; all agree after the norm.
        eps: addend to the mean square in the norm.

    Example:
        >>> from vitrail.grid import Grid
        >>> Retention(16, num_heads=2)(torch.randn(2, 6, 16), Grid(2, 3)).shape
        torch.Size([2, 6, 16])
    """

    def __init__(
        self, dim: int, num_heads: int, value_ratio: int = 2, retain: nn.Module | None = None, eps: float = 1e-5
    ):
        super().__init__()
        check_heads(dim // 2, num_heads)
        self.num_heads, self.eps = num_heads, eps
        self.q, self.k = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.v, self.gate = (nn.Linear(dim, value_ratio * dim, bias=False) for _ in range(2))
        self.retain = retain or ParallelRetention()
        self.proj = nn.Linear(value_ratio * dim, dim, bias=False)
        for layer in (self.q, self.k, self.v, self.gate):
            nn.init.xavier_uniform_(layer.weight, gain=2**-2.5)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix each token with those before it."""
        q, k, v = (y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))
        cache = grid.cache if isinstance(grid, TokenSequence) else None
        start = grid.start if isinstance(grid, TokenSequence) else 0
        q, k = (rotate_pairs(y, start) for y in (q, k * k.shape[-1] ** -0.5))
        if cache is None:
            heads = self.retain(q, k, v)  # (B, h, N, d)
        else:
            state = cache.states.get(self, q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1]))
            heads, cache.states[self] = retain_chunk(q, k, v, state)
        heads = rms_norm(heads, heads.shape[-1:], eps=self.eps)
        return self.proj(silu(self.gate(x)) * heads.transpose(1, 2).flatten(2))


def use_retention(model: nn.Module, form: nn.Module) -> nn.Module:
    """Let every retention of a model compute in a form: parallel, recurrent or chunkwise; the weights are the same.

    Args:
        model: any model, changed in-place and returned.
        form: a form without parameters, such as `ChunkwiseRetention(64)`.

    Example:
        >>> mixer = use_retention(Retention(16, num_heads=2), RecurrentRetention())
        >>> type(mixer.retain).__name__
        'RecurrentRetention'
    """
    for module in model.modules():
        if isinstance(module, Retention):
            module.retain = form
    return model


def rotate_pairs(x: Heads, start: int | Tensor = 0) -> Tensor:
    """Rotate each pair of channels by an angle that grows with the position.

    (x_2i, x_2i+1) is turned by n * 10000^(-i / (d / 2 - 1)); "Retentive Network", equation 4, after xPos.

    Args:
        x: queries or keys.
        start: position of the first token; a tensor in an exported step.

    Example:
        >>> x = torch.randn(1, 2, 5, 4)
        >>> torch.allclose(rotate_pairs(x).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
        True
    """
    pairs = x.shape[-1] // 2
    angles = 10_000.0 ** -torch.linspace(0, 1, pairs, device=x.device)
    angles = (start + torch.arange(x.shape[-2], device=x.device))[:, None] * angles  # (N, d / 2)
    even, odd = x.unflatten(-1, (pairs, 2)).unbind(-1)
    sin, cos = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
