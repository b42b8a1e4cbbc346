"""Branches as papers write them: the specification, and what runs where nothing faster can."""

from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from vitrail.kernels.branch.weights import Linear, Meeting, Norm
from vitrail.kernels.window import window
from vitrail.shapes import Tokens


def attention(x: Tokens, norm: Norm, qkv: Linear, proj: Linear, meeting: Meeting, keep: Tensor | None) -> Tensor:
    """Let tokens hear of each other: `x + keep * proj(attend(qkv(norm(x))))`.

    Args:
        x: `(B, N, C)`.
        norm: before the attention.
        qkv: to queries, keys and values, `(3 C, C)`; of padding they are its bias.
        proj: of what was mixed, `(C, C)`.
        meeting: who attends to whom.
        keep: a factor for the branch of each sample, `(B,)`, or None.
    """
    parts = linear(_normed(x, norm), *qkv)
    mixed = window(parts, qkv.bias, meeting.bias, meeting.kinds, meeting.slots, meeting.heads)
    return _joined(x, linear(mixed, *proj), keep)


def mlp(x: Tokens, norm: Norm, first: Linear, second: Linear, keep: Tensor | None) -> Tensor:
    """Let each token think by itself: `x + keep * second(gelu(first(norm(x))))`.

    Args:
        x: `(B, N, C)`.
        norm: before the MLP.
        first: `(hidden, C)`.
        second: `(C, hidden)`.
        keep: a factor for the branch of each sample, `(B,)`, or None.

    Example:
        >>> import torch
        >>> norm, zero = Norm(torch.ones(4), torch.zeros(4), 1e-5), Linear(torch.zeros(4, 4), torch.ones(4))
        >>> mlp(torch.zeros(2, 1, 4), norm, zero, zero, torch.tensor([0.0, 2.0]))[:, 0, 0].tolist()
        [0.0, 2.0]
    """
    return _joined(x, linear(gelu(linear(_normed(x, norm), *first)), *second), keep)


def _normed(x: Tokens, norm: Norm) -> Tensor:
    return layer_norm(x, norm.weight.shape, *norm)


def _joined(x: Tokens, branch: Tokens, keep: Tensor | None) -> Tensor:
    return x + (branch if keep is None else branch * keep.to(branch.dtype)[:, None, None])
