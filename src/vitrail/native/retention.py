"""Native retention (RetNet): causal linear attention with exponential decay, the norm of each head, and the gate.

Inference on a CPU, in fp32 or bf16, with decays, sums and norms in fp32.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vitrail.native.allocator import empty
from vitrail.native.attention import Rotation
from vitrail.native.build import library
from vitrail.native.ffi import at, call
from vitrail.shapes import Tokens


class Decay(NamedTuple):
    """Decays of the heads for a number of tokens, in the layout of the kernel.

    Args:
        powers: `(h, 2 N + panel)` in fp32, gamma^(N - 1), ..., gamma^0, then zeros.
        scale: `(h, N)` in fp32, the factor of each row of decays.
    """

    powers: Tensor
    scale: Tensor

    @classmethod
    def of(cls, gammas: Tensor, tokens: int) -> "Decay":
        """Prepare `gamma^(n - m) / sqrt(sum_m gamma^(n - m))` of each head, from gamma `(h,)`."""
        powers = gammas.double()[:, None] ** torch.arange(tokens, dtype=torch.float64)  # (h, N)
        scale = powers.cumsum(-1).rsqrt().float().contiguous()
        later = torch.zeros(len(gammas), tokens + library("gemm").vitrail_panel())
        return cls(torch.cat([powers.flip(-1).float(), later], -1).contiguous(), scale)


def retention(rows: Tokens, heads: int, width: int, turn: Rotation, decay: Decay, eps: float) -> Tensor:
    """Return `silu(gate) * norm(retain(q, k, v))` of each head, heads side by side: `(B, N, h e)`.

    Args:
        rows: `(B, N, 2 h d + 2 h e)`, queries, keys (divided by sqrt(d)), values and gates, in the compute dtype.
        heads: number of heads h.
        width: width d of queries and keys, even.
        turn: angles of queries and keys.
        decay: decays of the heads for N tokens.
        eps: addend to the mean square in the norm.
    """
    rows = rows.contiguous()
    batch, tokens, inner = rows.shape
    wide = inner // 2 // heads - width
    assert inner == 2 * heads * (width + wide) and turn.cos.shape == (tokens, width), (rows.shape, turn.cos.shape)
    assert decay.scale.shape == (heads, tokens), (decay.scale.shape, heads, tokens)
    y = empty(batch, tokens, heads * wide, dtype=rows.dtype)
    if not y.numel():
        return y
    call(
        *("retention", "retain", rows.dtype),
        rows=at(rows),
        batch=batch,
        tokens=tokens,
        heads=heads,
        width=width,
        wide=wide,
        cos=at(turn.cos),
        sin=at(turn.sin),
        decay=at(decay.powers),
        scale=at(decay.scale),
        eps=eps,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y
