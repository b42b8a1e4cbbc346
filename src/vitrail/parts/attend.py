"""Softmax attention as a leaf module; other forms of attention subclass it.

Kernel dispatch, capture of attention maps and export are handled here, so mixers do not depend on the kernel, and a
hook on `Attend` captures the attention of every architecture.
"""

from typing import Any

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.kernels.attention import attention
from vitrail.kernels.attention.reference import attention_map
from vitrail.shapes import Bias, Heads, Maps


class Attend(nn.Module):
    """Softmax attention without parameters: `softmax(q k^T / sqrt(d) + bias) v`."""

    def forward(self, q: Heads, k: Tensor, v: Tensor, bias: Bias | None = None) -> Tensor:
        """Mix the values of the keys that each query attends to.

        Args:
            q: queries `(*B, h, N, d)`.
            k: keys `(*B, h, M, d)`.
            v: values `(*B, h, M, d)`.
            bias: addend to the scores that broadcasts to `(*B, h, N, M)`.
        """
        return attention(q, k, v, bias)

    def operands(self, *given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries, keys, values and bias for `maps` from the arguments of `forward`."""
        q, k, v, *bias = given
        return q, k, v, bias[0] if bias else None

    def maps(self, q: Heads, k: Tensor, bias: Bias | None) -> Maps:
        """Compute the attention probabilities that `forward` mixes by, by the readable reference."""
        return attention_map(q, k, bias)


class NoQKNorm(nn.Module):
    """Queries and keys as they are: the default of `qk_norm`."""

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return both unchanged."""
        return q, k


def add_bias(*biases: Tensor | None) -> Tensor | None:
    """Add up biases of attention scores, of which each may be None; None if all are.

    Example:
        >>> import torch
        >>> add_bias(None, torch.ones(2), torch.ones(2)), add_bias(None, None)
        (tensor([2., 2.]), None)
    """
    given = [bias for bias in biases if bias is not None]
    return sum(given[1:], start=given[0]) if given else None


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse a number of heads that does not share the channels out evenly.

    Raises:
        VitrailError: if `num_heads` does not divide `dim`.

    Example:
        >>> check_heads(6, 4)
        Traceback (most recent call last):
        vitrail.errors.VitrailError: 4 heads cannot share 6 channels evenly. These can: 1, 2, 3, 6.
    """
    if num_heads < 1 or dim % num_heads:
        fitting = ", ".join(str(n) for n in range(1, min(dim, 64) + 1) if dim % n == 0)
        raise VitrailError(f"{num_heads} heads cannot share {dim} channels evenly. These can: {fitting}.")


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut one `(*B, N, 3 C)` projection into queries, keys and values, each `(*B, h, N, d)`.

    Example:
        >>> import torch
        >>> q, k, v = split_heads(torch.zeros(2, 5, 3 * 8), num_heads=4)
        >>> q.shape
        torch.Size([2, 4, 5, 2])
    """
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).unbind(-3)  # (*B, N, 3C) -> 3 x (*B, N, h, d)
    return q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """Put `(*B, h, N, d)` heads side by side again: `(*B, N, C)`.

    Example:
        >>> import torch
        >>> merge_heads(torch.zeros(2, 4, 5, 2)).shape
        torch.Size([2, 5, 8])
    """
    return x.transpose(-3, -2).flatten(-2)  # (*B, h, N, d) -> (*B, N, hd)
