"""Softmax attention as the paper writes it: slow, readable, the specification of every backend."""

from torch import Tensor

from vitrail.shapes import Bias, Heads, Maps


def attention_map(q: Heads, k: Tensor, bias: Bias | None) -> Maps:
    """Compute attention probabilities.

    A = softmax(q k^T / sqrt(d) + bias)

    "Attention Is All You Need", section 3.2.1.

    Args:
        q: queries.
        k: keys `(*B, h, M, d)`.
        bias: addend to the scores that broadcasts to `(*B, h, N, M)`; `-inf` forbids a pair.

    Example:
        >>> import torch
        >>> attention_map(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), None)[0, 0, 0]
        tensor([0.5000, 0.5000])
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def attend(q: Heads, k: Tensor, v: Tensor, bias: Bias | None) -> Tensor:
    """Mix the values by the attention probabilities: `A v`."""
    return attention_map(q, k, bias) @ v
