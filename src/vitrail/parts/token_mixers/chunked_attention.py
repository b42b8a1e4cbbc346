"""Causal attention in chunks: to the near tokens (local), or to tokens with similar queries (LSH), as in Reformer."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.layouts import Layout
from vitrail.parts.attend import merge_heads
from vitrail.parts.causal_attend import DropoutAttend
from vitrail.parts.recomputation import autocast_as
from vitrail.shapes import Tokens

_SELF, _HIDDEN = -1e5, -1e9  # scores of a token with itself, and with tokens that it does not see


class LocalChunkAttention(nn.Module):
    """Causal attention to the tokens of the same chunk and of the chunk before it.

    y_i = W_o concat_h softmax(q_i k_j^T / sqrt(d)) v_j over j <= i with (j div s) >= (i div s) - 1

    "Reformer", section 5, and its code (trax `SelfAttention` with chunks). Time and memory grow with N s.

    Args:
        dim: channels C.
        num_heads: heads h.
        head_dim: width d of a head.
        chunk: tokens s of a chunk.
        attend: leaf that computes the attention.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, chunk: int = 64, attend: DropoutAttend | None = None):
        super().__init__()
        self.num_heads, self.chunk = num_heads, chunk
        self.q, self.k, self.v = (nn.Linear(dim, num_heads * head_dim, bias=False) for _ in range(3))
        self.attend = attend or DropoutAttend()
        self.proj = nn.Linear(num_heads * head_dim, dim, bias=False)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix each token with near ones before it; padding on the right is later than every real token."""
        n, size = x.shape[1], min(self.chunk, x.shape[1])
        x = pad(x, (0, 0, 0, -n % size))
        q, k, v = (_heads(layer(x), self.num_heads).unflatten(2, (-1, size)) for layer in (self.q, self.k, self.v))
        k, v = (torch.cat([pad(part, (0, 0, 0, 0, 1, 0))[:, :, :-1], part], dim=3) for part in (k, v))
        out = self.attend(q, k, v, _local_bias(q))  # (B, h, c, s, d)
        return self.proj(merge_heads(out.flatten(2, 3))[:, :n])


class CausalLSHAttention(nn.Module):
    """Causal attention among tokens whose shared queries and keys hash alike; the chunked form of Reformer's code.

    b_i = argmax [u_i R, -u_i R], u = W_u x; tokens are sorted by (b, place) and cut into chunks; token i sees those of
    its own and the previous chunk that are not later, with scores u_i . u_j / |u_j|. It sees itself only if there is no
    other token to see. The rounds r are combined by their softmax sums.

    "Reformer", section 2, and its code (trax, Hugging Face), which differ: see `docs/errata.md`. A text of at most one
    chunk is one chunk, without hashing. Time and memory grow with N s r. The random rotations R are drawn from a seed
    and stay the same in training, so results can be repeated; the paper draws new ones at each step.

    Args:
        dim: channels C.
        num_heads: heads h.
        head_dim: width d of a head.
        buckets: factors of the number of buckets, each an even number; the hash has a digit for each.
        rounds: independent hashes.
        chunk: tokens s of a chunk.
        multiple: tokens are padded to a multiple of it, itself one of `chunk`.
        seed: of the random rotations.

    Raises:
        VitrailError: if a factor is odd, or the chunk does not divide the multiple.
    """

    rotations: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        buckets: Sequence[int] = (64,),
        rounds: int = 1,
        chunk: int = 64,
        multiple: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if any(factor < 2 or factor % 2 for factor in buckets) or not buckets:
            raise VitrailError(f"The factors of the number of buckets must be even, got {tuple(buckets)}.")
        self.num_heads, self.buckets, self.chunk = num_heads, tuple(buckets), chunk
        self.multiple = multiple or chunk
        if self.multiple % chunk:
            raise VitrailError(f"A text padded to a multiple of {self.multiple} cannot be cut into chunks of {chunk}.")
        self.qk, self.v = (nn.Linear(dim, num_heads * head_dim, bias=False) for _ in range(2))
        self.proj = nn.Linear(num_heads * head_dim, dim, bias=False)
        generator = torch.Generator("cpu").manual_seed(seed)
        drawn = torch.randn(num_heads, head_dim, rounds, sum(buckets) // 2, generator=generator, device="cpu")
        self.register_buffer("rotations", drawn.to(torch.get_default_device()), persistent=False)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the tokens of each chunk."""
        n = x.shape[1]
        lengths = torch.full((len(x),), n, device=x.device)
        padding = grid.key_padding(x)
        lengths = lengths if padding is None else padding[:, 0, 0].isfinite().sum(dim=-1)  # (B,)
        if n > self.chunk:
            x = pad(x, (0, 0, 0, -n % self.multiple))
        qk, v = (_heads(layer(x), self.num_heads) for layer in (self.qk, self.v))
        places = torch.arange(x.shape[1], device=x.device)
        if n <= self.chunk:
            order = places.expand(*qk.shape[:2], 1, -1)
        else:
            order = (self.bucket(qk, lengths) * len(places) + places).argsort(dim=-1)  # (B, h, r, N)
        outs, sums = self._rounds(qk, v, order, lengths)
        return self.proj(merge_heads((outs * sums.softmax(dim=2)).sum(dim=2))[:, :n])

    def bucket(self, qk: Tensor, lengths: Tensor) -> Tensor:
        """Return the bucket of each token in each round, `(B, h, r, N)`; padding has the last one."""
        with autocast_as(qk, enabled=False):
            rotated = torch.einsum("bhnd,hdrk->bhrnk", qk.detach().float(), self.rotations.float())
        found, factor = torch.zeros(rotated.shape[:-1], dtype=torch.long, device=qk.device), 1
        for digit, count in zip(
            rotated.split([count // 2 for count in self.buckets], dim=-1), self.buckets, strict=True
        ):
            found = found + factor * torch.cat([digit, -digit], dim=-1).argmax(dim=-1)
            factor *= count
        padded = torch.arange(qk.shape[2], device=qk.device) >= lengths[:, None]
        return found.masked_fill(padded[:, None, None], prod(self.buckets))

    def _rounds(self, qk: Tensor, v: Tensor, order: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed values `(B, h, r, N, d)` and the log of the softmax sums, in the order of the text."""
        size = min(self.chunk, qk.shape[2])
        q, values, places = (part.unflatten(3, (-1, size)) for part in (_take(qk, order), _take(v, order), order))
        keys = q * (q.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt() * q.shape[-1] ** -0.5
        single = lengths <= self.chunk
        last = torch.where(single, 0, -(-lengths // self.multiple) * (self.multiple // self.chunk) - 1)
        keys, values, seen = (_with_previous(part, last) for part in (keys, values, places))
        scores = q @ keys.transpose(-2, -1)  # (B, h, r, c, s, 2 s)
        each = lengths.view(-1, 1, 1, 1, 1, 1)
        hidden = (seen[..., None, :] > places[..., None]) | (seen[..., None, :] >= each)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(hidden, _HIDDEN)
        scores = scores.masked_fill(seen[..., None, :] == places[..., None], _SELF)
        if seen.shape[-1] > size:  # in a text of one chunk, the chunk before it is this chunk again
            again = (single[:, None] & (torch.arange(2 * size, device=q.device) < size)).view(-1, 1, 1, 1, 1, 2 * size)
            scores = scores.masked_fill(again, -torch.inf)
        mixed, total = scores.softmax(dim=-1).to(values.dtype) @ values, scores.logsumexp(dim=-1, keepdim=True)
        back = order.argsort(dim=-1)[..., None]
        return tuple(part.flatten(3, 4).take_along_dim(back, dim=3) for part in (mixed, total))  # pyright: ignore[reportReturnType]


def _heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, N, h d) -> (B, h, N, d)


def _local_bias(q: Tensor) -> Tensor:
    """Return `(c, s, 2 s)`: -inf for keys that are later, or before the text."""
    chunks, size = q.shape[2:4]
    places = torch.arange(chunks * size, device=q.device).view(chunks, size)
    keys = torch.cat([places - size, places], dim=1)[:, None]
    hidden = (keys > places[..., None]) | (keys < 0)
    return torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill(hidden, -torch.inf)


def _take(x: Tensor, order: Tensor) -> Tensor:
    """Put `(B, h, N, d)` into the order of each round: `(B, h, r, N, d)`."""
    return x[:, :, None].take_along_dim(order[..., None], dim=3)


def _with_previous(x: Tensor, last: Tensor) -> Tensor:
    """Put the previous chunk before each chunk, `(B, h, r, c, s, ...)`; before the first one, `last` of the last round.

    The rounds form one ring of chunks in the code of the paper. `last` `(B,)` is the last chunk that has tokens.
    """
    if x.shape[3] == 1:
        return x
    end = last.view(-1, *[1] * (x.ndim - 1)).expand(*x.shape[:3], 1, *x.shape[4:])
    first = x.gather(3, end).roll(1, dims=2)
    return torch.cat([torch.cat([first, x[:, :, :, :-1]], dim=3), x], dim=4)
