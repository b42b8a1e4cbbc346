"""An attention branch whose layers are products of bytes; what lies between them stays in fp32 or bf16."""

import ctypes

import torch
from torch import Tensor

from vitrail.native.calls import at, function
from vitrail.native.int8 import PackedInt8, weights
from vitrail.native.memory import empty


def attention_branch_int8(
    x: Tensor,
    heads: int,
    qkv: PackedInt8,
    proj: PackedInt8,
    slots: Tensor,
    padding: Tensor,
    kinds: Tensor | None,
    bias: Tensor | None,
    norm_eps: float,
) -> Tensor:
    """Return `x + proj(attention(qkv(norm(x))))` within groups; the arguments are those of `attention_branch`."""
    x = x.contiguous()
    batch, tokens, width = x.shape
    assert qkv.factors is not None and proj.factors is None
    assert (qkv.inputs, qkv.outputs, proj.inputs, proj.outputs) == (width, 3 * width, width, width)
    y = empty(*x.shape, dtype=x.dtype)
    function("int8_attention", "branch", x.dtype)(
        at(x),
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
        *weights(qkv),
        *weights(proj),
        at(qkv.factors),
        ctypes.c_float(norm_eps),
        at(y),
        torch.get_num_threads(),
    )
    return y
