"""Attention of tokens that stay where they are: a table says which of them meet.

It computes without gradients, on a CPU, in fp32 or bf16, and adds up in fp32.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.dtypes import PRODUCTS
from vitrail.native.ffi import DataPointers, at, function
from vitrail.native.gemm import Packed


@dataclass(frozen=True)
class TokenGroups:
    """Which tokens meet, and what is added to their scores.

    Args:
        slots: int32 `(groups, n)`, which token sits in each place; -1 is padding. Each token sits somewhere.
        padding: `(3 C,)`, queries, keys and values of padding, in the precision of products.
        kinds: int32 `(groups,)`, which bias a group has, or None.
        bias: laid out as the operation reads it (`lane_bias`, `window_gradient.pack_bias_and_mask`), or None.
    """

    slots: Tensor
    padding: Tensor
    kinds: Tensor | None = None
    bias: Tensor | None = None

    @cached_property
    def pointers(self) -> DataPointers:
        """Where all of it lies."""
        return DataPointers(self.slots, self.padding, self.kinds, self.bias)

    def operands(self) -> tuple[Any, ...]:
        """Return it as compiled code takes it."""
        slots, *others = self.pointers.addresses
        return slots, *self.slots.shape, *others


def lane_bias(bias: Tensor) -> Tensor:
    """Lay a bias `(kinds, h, n, n)` out in whole vectors, `(kinds, h, n, keys)`, fp32; where no key is, it forbids."""
    spare = -bias.shape[-1] % library("gemm").vitrail_lanes()
    return pad(bias.float(), (0, spare), value=-1e30).contiguous()


def attend_groups(qkv: Tensor, heads: int, seating: TokenGroups) -> Tensor:
    """Attend within groups of tokens, wherever they lie: no token is moved.

    y = softmax(q k^T + bias) v for each head of each group; the queries are scaled already

    Args:
        qkv: `(B, N, 3 C)`, queries, keys and values of each token.
        heads: heads h; `C = h d`, d even.
        seating: who meets.

    Returns:
        `(B, N, C)`.
    """
    qkv = qkv.contiguous()
    batch, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    y = empty(batch, tokens, width, dtype=qkv.dtype)
    function("attention", "attend", qkv.dtype)(*meeting(qkv, heads, width, seating), at(y), torch.get_num_threads())
    return y


def attend_keys(q: Tensor, kv: Tensor, heads: int) -> Tensor:
    """Let many queries attend to a few keys, such as those of a map that was made smaller.

    y = softmax(q k^T) v for each head; the queries are scaled already

    Args:
        q: `(B, N, C)`.
        kv: `(B, M, 2 C)`, keys and values.
        heads: heads h; `C = h d`, d even.

    Returns:
        `(B, N, C)`.
    """
    q, kv = q.contiguous(), kv.contiguous()
    batch, queries, width = q.shape
    assert kv.shape[0] == batch and kv.shape[2] == 2 * width and kv.dtype == q.dtype, (q.shape, kv.shape, kv.dtype)
    y = empty(*q.shape, dtype=q.dtype)
    function("attention", "attend_keys", q.dtype)(
        at(q), batch, queries, heads, width // heads, at(kv), kv.shape[1], at(y), torch.get_num_threads()
    )
    return y


def attention_branch(x: Tensor, heads: int, qkv: Packed, proj: Packed, seating: TokenGroups, norm_eps: float) -> Tensor:
    """Return `x + proj(attention(qkv(norm(x))))` within groups, some groups at a time: only x and y leave the cache.

    Args:
        x: `(B, N, C)`, stored as the residual.
        heads: heads h; `C = h d`, d even.
        qkv: makes queries, keys and values, the queries scaled.
        proj: comes after.
        seating: who meets; each token sits in one place.
        norm_eps: of the norm without scale and shift.
    """
    x = x.contiguous()
    width = x.shape[2]
    assert (qkv.inputs, qkv.outputs, proj.inputs, proj.outputs) == (width, 3 * width, width, width)
    assert qkv.takes(x, norm_eps) and proj.takes(x, None) and type(qkv) is type(proj)
    products = PRODUCTS[x.dtype]
    assert seating.padding.dtype == products, (x.dtype, seating.padding.dtype)
    y = empty(*x.shape, dtype=x.dtype)
    function(qkv.attention, "branch", products)(
        *meeting(x, heads, width, seating),
        *qkv.operands(),
        *proj.operands(),
        ctypes.c_float(norm_eps),
        at(y),
        torch.get_num_threads(),
    )
    return y


def meeting(x: Tensor, heads: int, width: int, seating: TokenGroups) -> tuple[Any, ...]:
    """Return what compiled attention within groups begins with: tokens `(B, N, *)`, who of them meet, and how."""
    return at(x), x.shape[0], x.shape[1], heads, width // heads, *seating.operands()
