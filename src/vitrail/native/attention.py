"""Attention of tokens that stay where they are: a table says which of them meet.

It computes without gradients, on a CPU, in fp32 or bf16, and adds up in fp32.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.calls import at, function
from vitrail.native.library import library


def lane_bias(bias: Tensor) -> Tensor:
    """Lay a bias `(kinds, h, n, n)` out in whole vectors: `(kinds, h, n, keys)`, fp32."""
    spare = -bias.shape[-1] % library("products").vitrail_lanes()
    return pad(bias.float(), (0, spare)).contiguous()


def attend_groups(
    qkv: Tensor, heads: int, slots: Tensor, padding: Tensor, kinds: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Attend within groups of tokens, wherever they lie: no token is moved.

    y = softmax(q k^T + bias) v for each head of each group; the queries are scaled already

    Args:
        qkv: `(B, N, 3 C)`, queries, keys and values of each token.
        heads: heads h; `C = h d`, d even.
        slots: int32 `(groups, n)`, which token sits in each place; -1 is padding. Each token sits somewhere.
        padding: `(3 C,)`, queries, keys and values of padding.
        kinds: int32 `(groups,)`, which bias a group has, or None.
        bias: from `lane_bias`, or None.

    Returns:
        `(B, N, C)`.
    """
    qkv = qkv.contiguous()
    batch, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    y = qkv.new_empty(batch, tokens, width)
    function("attention", "attend", qkv.dtype)(
        at(qkv),
        batch,
        tokens,
        heads,
        width // heads,
        at(slots),
        slots.shape[0],
        slots.shape[1],
        at(padding),
        at(kinds),
        at(bias),
        at(y),
        torch.get_num_threads(),
    )
    return y
