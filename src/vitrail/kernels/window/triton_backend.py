"""Window attention in Triton: supported inputs, launch, gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vitrail.kernels.triton_support import refusal, share, tile_of
from vitrail.shapes import Tokens

MOST_BYTES = 64 * 128 * 2  # of the keys of a tile: fits registers and the shared memory of small devices


def unsupported_reason(
    qkv: Tensor, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> str | None:
    """Return why Triton cannot take these tensors."""
    return refusal(qkv) or unfit(qkv, token_index, heads)


def unfit(qkv: Tensor, token_index: Tensor, heads: int) -> str | None:
    """Return why a tile cannot hold a group, or None."""
    n, width = token_index.shape[1], qkv.shape[2] // (3 * heads)
    if tile_of(n) * tile_of(width) * qkv.element_size() > MOST_BYTES or (n > 64 and qkv.element_size() > 2):
        return f"a tile of {n} keys of width {width} in {qkv.dtype} is too large"
    return None


def attend(
    qkv: Tokens, padding: Tensor | None, bias: Tensor | None, mask_index: Tensor, token_index: Tensor, heads: int
) -> Tensor:
    """Attend within groups of tokens; the arguments are those of the reference."""
    n = token_index.shape[1]
    addends = None if bias is None else bias.expand(-1, heads, n, n).contiguous()
    filling = None if padding is None or token_index.numel() == qkv.shape[1] else padding.to(qkv.dtype).contiguous()
    return _Attend.apply(qkv.contiguous(), filling, addends, mask_index, token_index, heads)  # pyright: ignore[reportReturnType]


class _Attend(Function):
    """Window attention with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        padding: Tensor | None,
        bias: Tensor | None,
        mask_index: Tensor,
        token_index: Tensor,
        heads: int,
    ) -> Tensor:
        (batch, tokens, width), (groups, n) = qkv.shape, token_index.shape
        shape = _shape(qkv, padding, bias, n, heads)
        out = qkv.new_empty(batch, tokens, width // 3)
        summed = any(ctx.needs_input_grad[:3])
        sums = qkv.new_empty((batch, groups, heads, n) if summed else (1,), dtype=torch.float32)
        blocks = -(-n // shape["ROWS"])
        most = share(batch, heads * blocks * groups, qkv.device)
        _kernels().forward[(heads * blocks, groups, -(-batch // most))](
            qkv,
            _or(padding, qkv),
            _or(bias, qkv),
            mask_index,
            token_index,
            out,
            sums,
            batch,
            tokens,
            groups,
            most,
            (width // (3 * heads)) ** -0.5,
            SUMMED=summed,
            **shape,
        )
        ctx.save_for_backward(qkv, padding, bias, mask_index, token_index, sums)
        ctx.heads = heads
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        qkv, padding, bias, mask_index, token_index, sums = ctx.saved_tensors
        (batch, tokens, width), (groups, n), heads = qkv.shape, token_index.shape, ctx.heads
        shape = _shape(qkv, padding, bias, n, heads)
        most = share(batch, heads * groups, qkv.device)
        shares = -(-batch // most)
        of_bias, of_padding = ctx.needs_input_grad[2], padding is not None
        into_qkv = torch.empty_like(qkv)
        # With one tile each program writes its sums once; with several it adds to them.
        into_bias = qkv.new_zeros((shares, groups, heads, n, n) if of_bias else (1,), dtype=torch.float32)
        into_padding = qkv.new_empty(
            (shares, groups, heads, 2, width // (3 * heads)) if of_padding else (1,), dtype=torch.float32
        )
        _kernels().backward[(heads, groups, shares)](
            qkv,
            _or(padding, qkv),
            _or(bias, qkv),
            mask_index,
            token_index,
            grad.contiguous(),
            sums,
            into_qkv,
            into_padding,
            into_bias,
            batch,
            tokens,
            groups,
            most,
            (width // (3 * heads)) ** -0.5,
            BIAS_GRAD=of_bias,
            PADDING_GRAD=of_padding,
            **shape,
        )
        return (
            into_qkv,
            _padding_grad(into_padding, padding) if of_padding else None,
            add_kinds(into_bias, mask_index, bias) if of_bias else None,
            None,
            None,
            None,
        )


def add_kinds(partial: Tensor, mask_index: Tensor, bias: Tensor) -> Tensor:
    """Add partial sums `(shares, G, h, n, n)` up over the groups of each kind, in a fixed order: `(K, h, n, n)`."""
    groups, addends, block = partial.shape[1], partial[0, 0].numel(), 64
    total = partial.new_empty(bias.shape)
    _kernels().add_kinds[(-(-addends // block), bias.shape[0])](
        partial, mask_index, total, partial.shape[0] * groups, groups, ADDENDS=addends, ROWS=32, BLOCK=block
    )
    return total.to(bias.dtype)


def _padding_grad(partial: Tensor, padding: Tensor) -> Tensor:
    """Add partial sums `(shares, G, h, 2, d)` up: `(3 C,)`, of which queries get nothing."""
    keys, values = partial.sum((0, 1)).transpose(0, 1).flatten(1)  # (h, 2, d) -> (2, C)
    return torch.cat([torch.zeros_like(keys), keys, values]).to(padding.dtype)


def _kernels() -> Any:
    from vitrail.kernels.window import triton_kernels

    return triton_kernels


def _shape(qkv: Tensor, padding: Tensor | None, bias: Tensor | None, n: int, heads: int) -> dict[str, Any]:
    """Return the constants of the kernels."""
    width = qkv.shape[2] // (3 * heads)
    places = tile_of(n)
    return dict(
        HEADS=heads,
        N=n,
        WIDTH=width,
        ROWS=places if places <= 64 else 16,
        PLACES=places,
        LANES=tile_of(width),
        BIASED=bias is not None,
        PADDED=padding is not None,
        PRECISION="tf32x3" if qkv.dtype == torch.float32 else "ieee",
        num_warps=4 if places <= 64 else 8,
        num_stages=2 if places * tile_of(width) <= 64 * 32 else 1,
    )


def _or(x: Tensor | None, other: Tensor) -> Tensor:
    """Return a tensor for a pointer that the kernel does not follow."""
    return other if x is None else x
