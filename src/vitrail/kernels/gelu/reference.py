"""A bias, then GELU."""

from torch import Tensor
from torch.nn import functional


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return `gelu(x + bias)` with `gelu(z) = z / 2 (1 + erf(z / sqrt(2)))`.

    "Gaussian Error Linear Units", section 2: the exact one.

    Args:
        x: `(*, C)`.
        bias: `(C,)`.

    Example:
        >>> import torch
        >>> bias_gelu(torch.tensor([[1.0, -3.0]]), torch.tensor([-1.0, 103.0])).tolist()
        [[0.0, 100.0]]
    """
    return functional.gelu(x + bias.to(x.dtype))
