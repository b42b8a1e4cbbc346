"""Attention within groups of tokens that stay where they are, with its gradient, and no map is kept in between.

It computes on a CPU, in fp32 or bf16, and adds up in fp32; sums over groups are taken in the same order on any number
of threads.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.allocator import fp32
from vitrail.native.attention import TokenGroups, meeting
from vitrail.native.build import library
from vitrail.native.ffi import at, function


class Groups(NamedTuple):
    """Tokens and who of them meet.

    Args:
        qkv: `(B, N, 3 C)`, queries, keys and values of each token, in one piece.
        heads: heads h; `C = h d`, d even in bf16.
        slots: int32 `(G, n)`, which token sits in each place of each group; -1 is padding. Each token sits somewhere.
        padding: `(3 C,)`, queries, keys and values of padding, of the precision of `qkv`.
        kinds: int32 `(G,)`, which addends a group has, or None.
        addends: from `pack_bias_and_mask`, or None.
    """

    qkv: Tensor
    heads: int
    slots: Tensor
    padding: Tensor
    kinds: Tensor | None
    addends: Tensor | None

    def operands(self) -> tuple[object, ...]:
        """Return what both operations begin with."""
        width = self.qkv.shape[2] // 3
        return meeting(self.qkv, self.heads, width, TokenGroups(self.slots, self.padding, self.kinds, self.addends))


def pack_bias_and_mask(bias: Tensor, heads: int) -> Tensor:
    """Lay addends `(K, h or 1, n, n)` out key first, in whole vectors: `(K, h, n, line)`, fp32."""
    spare = -bias.shape[-1] % _lanes()
    return pad(bias.mT.float(), (0, spare)).expand(-1, heads, -1, -1).contiguous()


def _lanes() -> int:
    """Numbers in a vector of this machine."""
    return library("window_gradient").vitrail_lanes()


def window_attention_forward(groups: Groups) -> tuple[Tensor, Tensor]:
    """Return y = softmax(q k^T / sqrt(d) + addend) v, `(B, N, C)`, and what the gradient needs of each softmax."""
    batch, tokens, width = groups.qkv.shape
    count, n = groups.slots.shape
    y = groups.qkv.new_empty(batch, tokens, width // 3)
    line = n + -n % _lanes()
    row_stats = fp32(batch, count, groups.heads, 2, line)
    forward = function("window_gradient", "window_forward", y.dtype)
    forward(*groups.operands(), at(row_stats), at(y), torch.get_num_threads())
    return y, row_stats


def window_attention_backward(
    groups: Groups, row_stats: Tensor, grad_y: Tensor, bias: bool, padding: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of `window_attention_forward`.

    Args:
        groups: what it was given.
        row_stats: what it gave beside y.
        grad_y: the gradient of y, in one piece.
        bias: whether that of the addends is wanted.
        padding: whether that of padding is wanted.

    Returns:
        Gradients of qkv, of the addends as `(K, h, n, n)`, query first, and of padding; the last two in fp32.
    """
    grad_qkv = torch.empty_like(groups.qkv)
    grad_addends = None if groups.addends is None or not bias else torch.empty_like(groups.addends)
    grad_padding = fp32(groups.qkv.shape[2]) if padding else None
    function("window_gradient", "window_backward", grad_qkv.dtype)(
        *groups.operands(),
        at(row_stats),
        at(grad_y),
        at(grad_qkv),
        at(grad_addends),
        0 if groups.addends is None else len(groups.addends),
        at(grad_padding),
        torch.get_num_threads(),
    )
    wanted = None if grad_addends is None else grad_addends[..., : groups.slots.shape[1]].mT
    return grad_qkv, wanted, grad_padding
