"""Attention within groups of tokens, gathered through an index table without moving them.

Inference on a CPU, in fp32 or bf16, with fp32 accumulation.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.native.allocator import empty
from vitrail.native.build import library
from vitrail.native.dtypes import PRODUCTS
from vitrail.native.ffi import Operand, at, call, nested
from vitrail.native.gemm import Packed, eps_or_none
from vitrail.native.norms import LaneNorm


@dataclass(frozen=True)
class TokenGroups:
    """Attention groups: token indices and the bias added to the scores.

    Args:
        slots: int32 `(groups, n)`, token index of each slot; -1 is padding. Every token has a slot.
        padding: `(3 C,)`, queries, keys and values of padding, in the compute dtype.
        kinds: int32 `(groups,)`, bias index of each group, or None.
        bias: in the layout of the kernel (`lane_bias`, `window_gradient.pack_bias_and_mask`), or None.
    """

    slots: Tensor
    padding: Tensor
    kinds: Tensor | None = None
    bias: Tensor | None = None

    @cached_property
    def operand(self) -> Operand:
        """Argument struct of the groups."""
        groups, count = self.slots.shape
        bias = {"kinds": self.kinds, "bias": self.bias}
        return Operand("GroupsArgs", slots=self.slots, groups=groups, count=count, padding=self.padding, **bias)


class Rotation(NamedTuple):
    """Angles of the pairs of channels (2 i, 2 i + 1) of each token: `y = cos x + sin swap(x)`.

    Args:
        cos: `(N, d)` in fp32, cos of the pair's angle for both channels.
        sin: `(N, d)` in fp32, -sin for the even and sin for the odd channels.
    """

    cos: Tensor
    sin: Tensor


class GatedPositions(NamedTuple):
    """Positional attention that is mixed into the softmax of the contents: `content_gate_h softmax(q k^T) + probs_h`.

    Args:
        probs: `(h, n, keys)` in the compute dtype, softmax of the positions times its gate, zero for padding keys.
        content_gate: `(h,)` in fp32.
    """

    probs: Tensor
    content_gate: Tensor

    @classmethod
    def of(cls, probs: Tensor, content_gate: Tensor, dtype: torch.dtype) -> "GatedPositions":
        """Pad probabilities `(h, n, n)` to whole SIMD vectors."""
        spare = -probs.shape[-1] % library("gemm").vitrail_lanes()
        return cls(pad(probs, (0, spare)).to(dtype).contiguous(), content_gate.float().contiguous())

    def args(self, heads: int, dtype: torch.dtype) -> dict[str, int | None]:
        """Check them for a number of heads and a compute dtype, and return their addresses."""
        assert self.probs.dtype == dtype and len(self.probs) == len(self.content_gate) == heads, self.probs.shape
        return {"positions": at(self.probs), "content_gate": at(self.content_gate)}


def lane_bias(bias: Tensor) -> Tensor:
    """Pad a bias `(kinds, h, n, n)` to whole SIMD vectors, `(kinds, h, n, keys)`, fp32; padding keys are masked."""
    spare = -bias.shape[-1] % library("gemm").vitrail_lanes()
    return pad(bias.float(), (0, spare), value=-1e30).contiguous()


def attend_groups(qkv: Tensor, heads: int, seating: TokenGroups) -> Tensor:
    """Attend within groups of tokens, gathered by index.

    y = softmax(q k^T + bias) v for each head of each group; queries are already scaled

    Args:
        qkv: `(B, N, 3 C)`, queries, keys and values of each token.
        heads: heads h; `C = h d`, d even.
        seating: the attention groups.

    Returns:
        `(B, N, C)`.
    """
    qkv = qkv.contiguous()
    y = _empty_mix(qkv)
    call("attention", "attend", qkv.dtype, **_attend_fields(qkv, heads, seating, y))
    return y


def attend_gated(qkv: Tensor, heads: int, seating: TokenGroups, positions: GatedPositions) -> Tensor:
    """Return `attend_groups` with positions mixed into the softmax of each head."""
    qkv = qkv.contiguous()
    y = _empty_mix(qkv)
    attend = nested("AttendArgs", **_attend_fields(qkv, heads, seating, y))
    call("attention", "attend_gated", qkv.dtype, attend=attend, **positions.args(heads, qkv.dtype))
    return y


def _empty_mix(qkv: Tensor) -> Tensor:
    """Return an uninitialised `(B, N, C)` for the mixed values of `(B, N, 3 C)`."""
    return empty(*qkv.shape[:2], qkv.shape[2] // 3, dtype=qkv.dtype)


def _attend_fields(qkv: Tensor, heads: int, seating: TokenGroups, y: Tensor) -> dict[str, Any]:
    """Return the fields of `AttendArgs`."""
    sizes = grouped(qkv, heads, y.shape[-1], seating)
    return {"qkv": at(qkv), **sizes, "y": at(y), "threads": torch.get_num_threads()}


def attend_causal(qkv: Tensor, heads: int) -> Tensor:
    """Attend from each token to itself and those before it.

    y_i = softmax_j<=i(q_i k_j) v_j for each head; queries are already scaled

    Args:
        qkv: `(B, N, 3 C)`, queries, keys and values of each token.
        heads: heads h; `C = h d`, d even.

    Returns:
        `(B, N, C)`.
    """
    qkv = qkv.contiguous()
    y = _empty_mix(qkv)
    call(
        *("attention", "attend_causal", qkv.dtype),
        qkv=at(qkv),
        batch=len(qkv),
        tokens=qkv.shape[1],
        heads=heads,
        width=y.shape[-1] // heads,
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def attend_keys(q: Tensor, kv: Tensor, heads: int) -> Tensor:
    """Attend from queries to other tokens: many to the few of a downsampled map, or few to those of a long array.

    y = softmax(q k^T) v for each head; queries are already scaled

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
    if not y.numel():
        return y
    call(
        *("attention", "attend_keys", q.dtype),
        q=at(q),
        batch=batch,
        queries=queries,
        heads=heads,
        width=width // heads,
        kv=at(kv),
        keys=kv.shape[1],
        y=at(y),
        threads=torch.get_num_threads(),
    )
    return y


def attention_branch(x: Tensor, heads: int, qkv: Packed, proj: Packed, seating: TokenGroups, norm_eps: float) -> Tensor:
    """Return `x + proj(attention(qkv(norm(x))))` within groups, blocked over groups: only x and y leave the cache.

    Args:
        x: `(B, N, C)`, in the residual dtype.
        heads: heads h of width d, d even.
        qkv: packed query, key and value projection, `(3 h d, C)`; its queries are scaled.
        proj: packed output projection, `(C, h d)`.
        seating: the attention groups; each token has exactly one slot.
        norm_eps: epsilon of the norm without scale and shift.
    """
    x = x.contiguous()
    y = empty(*x.shape, dtype=x.dtype)
    fields = _branch_fields(x, y, heads, qkv, proj, seating, norm_eps)
    call(qkv.attention, "branch", PRODUCTS[x.dtype], **fields)
    return y


def cosine_branch(
    x: Tensor, heads: int, qkv: Packed, proj: Packed, seating: TokenGroups, scales: Tensor, norm: LaneNorm
) -> Tensor:
    """Return `x + norm(proj(attention(qkv(x))))` within groups, with cosine scores, blocked over groups.

    scores = scale cos(q, k) + bias for each head

    Args:
        x: `(B, N, C)`, in the residual dtype.
        heads: heads h of width d, d even.
        qkv: packed query, key and value projection, `(3 h d, C)`.
        proj: packed output projection, `(C, h d)`.
        seating: the attention groups; each token has exactly one slot. Queries and keys of padding have their lengths.
        scales: `(h,)`, fp32.
        norm: of the finished rows, in fp32.
    """
    x = x.contiguous()
    assert scales.shape == (heads,) and scales.dtype == torch.float32, (scales.shape, scales.dtype)
    y = empty(*x.shape, dtype=x.dtype)
    branch = nested("BranchArgs", **_branch_fields(x, y, heads, qkv, proj, seating, None))
    call(*(qkv.attention, "cosine_branch", PRODUCTS[x.dtype]), branch=branch, scales=at(scales), norm=norm.operand.args)
    return y


def rotated_branch(
    x: Tensor, heads: int, qkv: Packed, proj: Packed, seating: TokenGroups, norm_eps: float, turn: Rotation
) -> Tensor:
    """Return `attention_branch` with turned queries and keys; each slot of a group is the token of that number."""
    x = x.contiguous()
    assert turn.cos.shape == turn.sin.shape == (seating.slots.shape[1], proj.inputs // heads), turn.cos.shape
    y = empty(*x.shape, dtype=x.dtype)
    branch = nested("BranchArgs", **_branch_fields(x, y, heads, qkv, proj, seating, norm_eps))
    call(*(qkv.attention, "rotated_branch", PRODUCTS[x.dtype]), branch=branch, cos=at(turn.cos), sin=at(turn.sin))
    return y


def gated_branch(
    x: Tensor, heads: int, qkv: Packed, proj: Packed, seating: TokenGroups, norm_eps: float, positions: GatedPositions
) -> Tensor:
    """Return `attention_branch` with positions mixed into the softmax of each head; all groups have the same."""
    x = x.contiguous()
    y = empty(*x.shape, dtype=x.dtype)
    branch = nested("BranchArgs", **_branch_fields(x, y, heads, qkv, proj, seating, norm_eps))
    call(qkv.attention, "gated_branch", PRODUCTS[x.dtype], branch=branch, **positions.args(heads, PRODUCTS[x.dtype]))
    return y


def rotate(qkv: Tensor, heads: int, turn: Rotation) -> Tensor:
    """Turn queries and keys `(B, N, 3 C)` in place, and return them."""
    batch, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3 // heads
    assert qkv.is_contiguous() and turn.cos.shape == turn.sin.shape == (tokens, width), (qkv.shape, turn.cos.shape)
    call(
        *("attention", "rotate", qkv.dtype),
        qkv=at(qkv),
        batch=batch,
        tokens=tokens,
        heads=heads,
        width=width,
        cos=at(turn.cos),
        sin=at(turn.sin),
        threads=torch.get_num_threads(),
    )
    return qkv


def _branch_fields(
    x: Tensor, y: Tensor, heads: int, qkv: Packed, proj: Packed, seating: TokenGroups, norm_eps: float | None
) -> dict[str, Any]:
    """Check the operands of an attention branch, and return the fields of `BranchArgs`."""
    inner = proj.inputs
    assert (qkv.inputs, qkv.outputs, proj.outputs) == (x.shape[2], 3 * inner, x.shape[2])
    assert qkv.takes(x, norm_eps) and type(qkv) is type(proj) and qkv.panels.dtype == proj.panels.dtype
    assert seating.padding.dtype == PRODUCTS[x.dtype], (x.dtype, seating.padding.dtype)
    return {
        "x": at(x),
        **grouped(x, heads, inner, seating),
        "qkv": qkv.args,
        "proj": proj.args,
        "eps": eps_or_none(norm_eps),
        "y": at(y),
        "threads": torch.get_num_threads(),
    }


def grouped(x: Tensor, heads: int, width: int, seating: TokenGroups) -> dict[str, Any]:
    """Return the arguments that native group attention of tokens `(B, N, *)` has in common: sizes and groups."""
    batch, tokens = x.shape[:2]
    return {
        "batch": batch,
        "tokens": tokens,
        "heads": heads,
        "width": width // heads,
        "groups": seating.operand.args,
    }
