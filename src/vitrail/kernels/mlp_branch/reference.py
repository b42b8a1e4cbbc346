"""The branch of an MLP as papers write it: the specification, and what runs where nothing faster can."""

from torch import Tensor
from torch.nn.functional import gelu, linear

from vitrail.kernels.branch import Linear, Norm, joined, normed
from vitrail.shapes import Tokens


def transform(x: Tokens, norm: Norm, first: Linear, second: Linear, keep: Tensor | None) -> Tensor:
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
        >>> transform(torch.zeros(2, 1, 4), norm, zero, zero, torch.tensor([0.0, 2.0]))[:, 0, 0].tolist()
        [0.0, 2.0]
    """
    return joined(x, linear(gelu(linear(normed(x, norm), *first)), *second), keep)
