"""Native attention with linear layers over heads before and after the softmax: re-attention and talking heads.

Inference on a CPU, in fp32 or bf16, with scores, softmax and mixing in fp32.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.ffi import at, call, nested
from vitrail.shapes import Tokens

MOST_HEADS = 32
"""Most heads that are compiled."""


class HeadLayer(NamedTuple):
    """A linear layer over heads: `a'_g = sum_h W_gh a_h + b_g` for each query and key.

    Args:
        weight: `(h, h)` in fp32.
        bias: `(h,)` in fp32.
    """

    weight: Tensor
    bias: Tensor


def mixed_attention(qkv: Tokens, heads: int, before: HeadLayer | None, after: HeadLayer | None) -> Tensor:
    """Return `after(softmax(before(q k^T))) v`, heads side by side: `(B, N, h d)`.

    Args:
        qkv: `(B, N, 3 h d)`, queries (scaled), keys and values, in the compute dtype; d is even in bf16.
        heads: number of heads h, at most `MOST_HEADS`.
        before: layer on the scores, or None.
        after: layer on the probabilities, or None.
    """
    qkv = qkv.contiguous()
    batch, tokens, width = qkv.shape
    assert width % (3 * heads) == 0 and heads <= MOST_HEADS, (width, heads)
    y = empty(batch, tokens, width // 3, dtype=qkv.dtype)
    if not y.numel():
        return y
    call(
        *("mixed_attention", "mixed_attend", qkv.dtype),
        qkv=at(qkv),
        batch=batch,
        tokens=tokens,
        heads=heads,
        width=width // 3 // heads,
        before=_layer(before),
        after=_layer(after),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def _layer(layer: HeadLayer | None) -> object:
    weight, bias = layer or (None, None)
    return nested("HeadLayerArgs", weight=weight, bias=bias)
