"""Window attention by copies of whole rows and the plain attention kernel: the way that needs no kernel of its own.

Cutting into groups and joining are transposes of each other, so the gradient of one is the other: a copy again, where
PyTorch would add numbers up one by one.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from vitrail.kernels.attention import attention
from vitrail.kernels.window.reference import places
from vitrail.shapes import Tokens


def unsupported_reason(
    qkv: Tensor, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> str | None:
    """Return why copies of rows cannot take these tensors."""
    return None if qkv.is_floating_point() else f"needs floating point, got {qkv.dtype}"


def attend(
    qkv: Tokens, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> Tensor:
    """Attend within groups of tokens; the arguments are those of the reference."""
    table, place = token_index.flatten(), places(token_index, qkv.shape[1])
    rows: Any = _Cut.apply(qkv, padding, table, place)
    q, k, v = (
        rows.unflatten(2, (3, heads, -1)).unflatten(1, token_index.shape).permute(3, 0, 1, 4, 2, 5)
    )  # (B, G, h, n, d)
    mixed = attention(q, k, v, choose(bias, mask_index, qkv.dtype))
    return _Join.apply(mixed.transpose(2, 3).flatten(3).flatten(1, 2), table, place)  # pyright: ignore[reportReturnType]


def choose(bias: Tensor | None, mask_index: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Give each group its addend, `(G or 1, h or 1, n, n)`."""
    if bias is None or len(bias) == 1:
        return None if bias is None else bias.to(dtype)
    return _Choose.apply(bias.to(dtype), mask_index)  # pyright: ignore[reportReturnType]


def cut_rows(rows: Tokens, padding: Tensor | None, table: Tensor) -> Tensor:
    """Lay tokens `(B, N, C)` out place by place, `(B, G n, C)`; as many places as tokens are no padding."""
    if len(table) > rows.shape[1]:
        last = rows.new_zeros(rows.shape[2]) if padding is None else padding.to(rows.dtype)
        rows = torch.cat([rows, last.expand(rows.shape[0], 1, -1)], dim=1)
    return rows.index_select(1, table.remainder(rows.shape[1]))  # -1 is the last; an index would take twice as long


class _Cut(Function):
    """Copy tokens to their places."""

    @staticmethod
    def forward(rows: Tensor, padding: Tensor | None, table: Tensor, place: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cut_rows(rows, padding, table)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, padding, table, place = inputs
        ctx.save_for_backward(table, place)
        ctx.dtype = None if padding is None else padding.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        table, place = ctx.saved_tensors
        into_padding = None
        if ctx.needs_input_grad[1]:
            into_padding = ((table < 0).to(grad.dtype) @ grad).sum(0).to(ctx.dtype)  # (Gn) x (B, Gn, C) -> (C)
        return grad.index_select(1, place), into_padding, None, None


class _Join(Function):
    """Copy each place back to its token."""

    @staticmethod
    def forward(grouped: Tensor, table: Tensor, place: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grouped.index_select(1, place)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cut_rows(grad, None, ctx.saved_tensors[0]), None, None


class _Choose(Function):
    """Look addends up, with a gradient that is a product: it is summed in a fixed order."""

    @staticmethod
    def forward(bias: Tensor, mask_index: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return bias[mask_index]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        bias, mask_index = inputs
        ctx.save_for_backward(mask_index)
        ctx.shape = bias.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (mask_index,) = ctx.saved_tensors
        chosen = torch.arange(ctx.shape[0], device=mask_index.device)[:, None] == mask_index  # (K, G)
        return (chosen.to(grad.dtype) @ grad.flatten(1)).view(ctx.shape), None
