"""Tokens merged or pruned in one call, from the queries and keys of their attention.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation. Tokens have the residual dtype.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.ffi import at, call


class TokenSet(NamedTuple):
    """Tokens that stand for places of a grid.

    Args:
        x: `(B, N, C)`, in the residual dtype.
        sizes: number of places of each token, `(B, N)`, fp32.
        source: token of each place, `(B, P)`, int64.
        prefix: first tokens, which stay.
    """

    x: Tensor
    sizes: Tensor
    source: Tensor
    prefix: int


def merge_tokens(qkv: Tensor, heads: int, head_dim: int, tokens: TokenSet, removed: int) -> TokenSet:
    """Merge the most similar pairs by their keys; the specification is `parts.token_reduction.MergeSimilar`.

    Args:
        qkv: `(B, N, 3 h w)`, queries, keys and values, with w at least `head_dim` channels for each head.
        heads: heads h.
        head_dim: first channels of a head that are compared.
        tokens: the tokens.
        removed: pairs to merge; at most half of the tokens behind the prefix.
    """
    return _reduced("merge_tokens", qkv, heads, head_dim, tokens, removed, qkv.shape[1] - removed)


def keep_tokens(qkv: Tensor, heads: int, head_dim: int, tokens: TokenSet, kept: int) -> TokenSet:
    """Keep the cells that the first token attends to most; the specification is `parts.token_reduction.KeepAttended`.

    Args:
        qkv: `(B, N, 3 h w)`; queries are already scaled.
        heads: heads h.
        head_dim: channels of a head.
        tokens: the tokens.
        kept: cells to keep; the others, at least one, become one token.
    """
    return _reduced("keep_tokens", qkv, heads, head_dim, tokens, kept, tokens.prefix + kept + 1)


def _reduced(name: str, qkv: Tensor, heads: int, head_dim: int, tokens: TokenSet, number: int, left: int) -> TokenSet:
    qkv, x, source = qkv.contiguous(), tokens.x.contiguous(), tokens.source.contiguous()
    batch, count, channels = x.shape
    assert x.dtype == RESIDUAL[qkv.dtype] and tokens.sizes.dtype == torch.float32 and source.dtype == torch.long
    y = empty(batch, left, channels, dtype=x.dtype)
    sizes, fewer = torch.empty(batch, left), torch.empty_like(source)
    given = tokens.sizes.contiguous()
    call(
        *("token_reduction", name, qkv.dtype),
        qkv=at(qkv),
        batch=batch,
        tokens=count,
        heads=heads,
        wide=qkv.shape[2] // (3 * heads),
        width=head_dim,
        prefix=tokens.prefix,
        number=number,
        x=at(x),
        sizes=at(given),
        source=at(source),
        y=at(y),
        fewer_sizes=at(sizes),
        fewer_source=at(fewer),
        channels=channels,
        places=source.shape[1],
        threads=torch.get_num_threads(),
    )
    return TokenSet(y, sizes, fewer, tokens.prefix)
