"""Residual branch of an MLP as papers write it: the specification and the fallback."""

from torch import Tensor
from torch.nn.functional import gelu, linear

from vitrail.kernels.fused_types import LinearWeights, NormWeights, normed, residual_add
from vitrail.shapes import Tokens


def transform(
    x: Tokens, norm: NormWeights, first: LinearWeights, second: LinearWeights, drop_scale: Tensor | None
) -> Tensor:
    """Return `x + drop_scale * second(gelu(first(norm(x))))`.

    Args:
        x: `(B, N, C)`.
        norm: before the MLP.
        first: `(hidden, C)`.
        second: `(C, hidden)`.
        drop_scale: a factor for the branch of each sample, `(B,)`, or None.

    Example:
        >>> import torch
        >>> norm = NormWeights(torch.ones(4), torch.zeros(4), 1e-5)
        >>> zero = LinearWeights(torch.zeros(4, 4), torch.ones(4))
        >>> transform(torch.zeros(2, 1, 4), norm, zero, zero, torch.tensor([0.0, 2.0]))[:, 0, 0].tolist()
        [0.0, 2.0]
    """
    return residual_add(x, linear(gelu(linear(normed(x, norm), *first)), *second), drop_scale)
