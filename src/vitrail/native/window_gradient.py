"""Attention within groups of tokens for training, forward and backward, without saved attention weights.

On a CPU, in fp32 or bf16, with fp32 accumulation; sums over groups have the same order for any number of threads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.allocator import fp32
from vitrail.native.attention import TokenGroups, grouped
from vitrail.native.build import library
from vitrail.native.ffi import at, call


class Groups(NamedTuple):
    """Tokens and their attention groups.

    Args:
        qkv: `(B, N, 3 C)`, queries, keys and values of each token, contiguous.
        heads: heads h; `C = h d`, d even in bf16.
        slots: int32 `(G, n)`, token index of each slot of each group; -1 is padding. Every token has a slot.
        padding: `(3 C,)`, queries, keys and values of padding, in the dtype of `qkv`.
        kinds: int32 `(G,)`, bias and mask index of each group, or None.
        addends: from `pack_bias_and_mask`, or None.
    """

    qkv: Tensor
    heads: int
    slots: Tensor
    padding: Tensor
    kinds: Tensor | None
    addends: Tensor | None

    def operands(self) -> dict[str, Any]:
        """Return the arguments that both native functions have in common."""
        seating = TokenGroups(self.slots, self.padding, self.kinds, self.addends)
        return {"qkv": at(self.qkv), **grouped(self.qkv, self.heads, self.qkv.shape[2] // 3, seating)}


def pack_bias_and_mask(bias: Tensor, heads: int) -> Tensor:
    """Transpose bias plus mask `(K, h or 1, n, n)` to key-major, padded to whole vectors: `(K, h, n, line)`, fp32."""
    spare = -bias.shape[-1] % _lanes()
    return pad(bias.mT.float(), (0, spare)).expand(-1, heads, -1, -1).contiguous()


def _lanes() -> int:
    """Return the number of fp32 lanes of a SIMD vector on this machine."""
    return library("window_gradient").vitrail_lanes()


def window_attention_forward(groups: Groups) -> tuple[Tensor, Tensor]:
    """Return y = softmax(q k^T / sqrt(d) + addend) v, `(B, N, C)`, and the softmax statistics of each row."""
    batch, tokens, width = groups.qkv.shape
    count, n = groups.slots.shape
    y = groups.qkv.new_empty(batch, tokens, width // 3)
    line = n + -n % _lanes()
    row_stats = fp32(batch, count, groups.heads, 2, line)
    call(
        *("window_gradient", "window_forward", y.dtype),
        **groups.operands(),
        row_stats=at(row_stats),
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y, row_stats


def window_attention_backward(
    groups: Groups, row_stats: Tensor, grad_y: Tensor, bias: bool, padding: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of `window_attention_forward`.

    Args:
        groups: the argument of the forward pass.
        row_stats: the softmax statistics that it returned.
        grad_y: gradient of y, contiguous.
        bias: whether to compute the gradient of the addends.
        padding: whether to compute the gradient of padding.

    Returns:
        Gradients of qkv, of the addends as `(K, h, n, n)`, query first, and of padding; the last two in fp32.
    """
    grad_qkv = torch.empty_like(groups.qkv)
    grad_addends = None if groups.addends is None or not bias else torch.empty_like(groups.addends)
    grad_padding = fp32(groups.qkv.shape[2]) if padding else None
    call(
        *("window_gradient", "window_backward", grad_qkv.dtype),
        **groups.operands(),
        row_stats=at(row_stats),
        dy=at(grad_y),
        dqkv=at(grad_qkv),
        dbias=at(grad_addends),
        all_kinds=0 if groups.addends is None else len(groups.addends),
        dpadding=at(grad_padding),
        threads=torch.get_num_threads(),
    )
    wanted = None if grad_addends is None else grad_addends[..., : groups.slots.shape[1]].mT
    return grad_qkv, wanted, grad_padding
