"""Attention to the tokens of the same hash bucket (Reformer)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vitrail.layouts import Layout
from vitrail.parts.attend import check_heads, merge_heads
from vitrail.shapes import Tokens

_SELF, _HIDDEN = -1e5, -1e9  # scores of a token with itself, and with tokens that it does not see


class LSHAttention(nn.Module):
    """Attention of a token to those of its bucket, found by sorting; queries are the keys.

    Hash: argmax [x R, -x R] for a random R. Tokens are sorted by (bucket, place), cut into chunks, and each sees those
    of its bucket in its own and the previous chunk; the rounds are combined by their softmax sums.

    "Reformer: The Efficient Transformer", section 2, equations 3 to 6, and appendix A. Time and memory grow with
    N (chunk) (rounds). Exact with one bucket and a chunk as long as the text: full attention with shared queries and
    keys, in which a token sees itself only if there is no other. Otherwise near tokens may be missed, fewer with more
    rounds. The hashes are stored with the weights.

    Args:
        dim: channels C.
        num_heads: heads h.
        buckets: buckets, 1 or an even number.
        rounds: independent hashes.
        chunk: tokens of a chunk.
    """

    hashes: Tensor

    def __init__(self, dim: int, num_heads: int, buckets: int = 16, rounds: int = 2, chunk: int = 64):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.buckets, self.chunk = num_heads, buckets, chunk
        self.qk, self.v = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.register_buffer("hashes", torch.randn(rounds, dim // num_heads, max(1, buckets // 2)))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Mix the tokens of each bucket."""
        qk, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (self.qk(x), self.v(x)))
        padding = grid.key_padding(x)
        real = torch.ones(len(x), 1, x.shape[1], dtype=torch.bool, device=x.device)
        real = real if padding is None else padding[:, 0].isfinite()  # (B, 1, N)
        rounds = [self._round(qk, v, self.bucket(qk, real, r)) for r in range(len(self.hashes))]
        outs, sums = (torch.stack(parts) for parts in zip(*rounds, strict=True))
        return self.proj(merge_heads((outs * sums.softmax(dim=0)).sum(dim=0)))

    def bucket(self, qk: Tensor, real: Tensor, round: int) -> Tensor:
        """Return the bucket of each token `(B, h, N)`; padding has a bucket of its own, the last."""
        rotated = qk @ self.hashes[round].to(qk.dtype)
        found = torch.cat([rotated, -rotated], dim=-1).argmax(dim=-1) % self.buckets
        return found.masked_fill(~real, self.buckets)

    def _round(self, qk: Tensor, v: Tensor, bucket: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed values and the log of the softmax sums of one hash, in the order of the text."""
        n = qk.shape[2]
        order = (bucket * n + torch.arange(n, device=qk.device)).argsort(dim=-1)  # (B, h, N)
        size = self.chunk  # no branch on a length: an exported program has any number of chunks
        place = pad(order, (0, -n % size), value=-1)
        sorted_bucket = bucket.gather(-1, place.clamp_min(0)).masked_fill(place < 0, -1)
        q, values = (_take(part, place).unflatten(2, (-1, size)) for part in (qk, v))  # (B, h, chunks, size, d)
        spots, kinds = (part.unflatten(2, (-1, size)) for part in (place, sorted_bucket))
        keys = q / q.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        keys, values, key_spots, key_kinds = (_with_previous(part) for part in (keys, values, spots, kinds))
        scores = q * q.shape[-1] ** -0.5 @ keys.transpose(-2, -1)
        scores = scores.masked_fill(kinds[..., None] != key_kinds[..., None, :], _HIDDEN)
        scores = scores.masked_fill(spots[..., None] == key_spots[..., None, :], _SELF)
        total = scores.logsumexp(dim=-1, keepdim=True)
        mixed = scores.softmax(dim=-1) @ values  # not exp(scores - total): a sum near -1e5 is rounded to 1 / 128
        back = order.argsort(dim=-1)
        return tuple(_take(part.flatten(2, 3), back) for part in (mixed, total))  # pyright: ignore[reportReturnType]


def _take(x: Tensor, place: Tensor) -> Tensor:
    """Take the tokens at `place` `(B, h, n)` from `(B, h, N, d)`; -1 takes the first, which is masked later."""
    return x.gather(2, place.clamp_min(0)[..., None].expand(*place.shape, x.shape[-1]))


def _with_previous(x: Tensor) -> Tensor:
    """Put the previous chunk before each chunk, `(B, h, chunks, size, ...)`, the last one before the first.

    A single chunk stands there twice: each softmax sum doubles, which changes neither its mean nor the rounds' shares.
    """
    return torch.cat([x.roll(1, dims=2), x], dim=3)
