"""Native cross-covariance attention: the channels of each head attend to each other over all tokens.

Inference on a CPU, in fp32 or bf16, with scores and softmax in fp32.
"""

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.ffi import at, call
from vitrail.shapes import Tokens


def covariance_attention(qkv: Tokens, heads: int, temperature: Tensor) -> Tensor:
    """Return `softmax(tau q^T k / (|q| |k|^T)) v^T` of each head, transposed, heads side by side: `(B, N, h d)`.

    Lengths are over the tokens; they divide the map, so that no pass normalises q or k.

    Args:
        qkv: `(B, N, 3 h d)`, queries, keys and values, in the compute dtype; d is even in bf16.
        heads: number of heads h.
        temperature: tau of each head, `(h,)` in fp32.
    """
    qkv = qkv.contiguous()
    batch, tokens, width = qkv.shape
    assert width % (3 * heads) == 0 and temperature.shape == (heads,), (width, heads, temperature.shape)
    y = empty(batch, tokens, width // 3, dtype=qkv.dtype)
    if not y.numel():
        return y
    call(
        *("cross_covariance", "covariance_attend", qkv.dtype),
        qkv=at(qkv),
        batch=batch,
        tokens=tokens,
        heads=heads,
        width=width // 3 // heads,
        temperature=at(temperature),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y
