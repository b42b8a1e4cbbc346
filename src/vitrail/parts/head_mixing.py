"""Attention whose heads are mixed, before the softmax, after it, or both."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from vitrail.parts.attend import Attend
from vitrail.shapes import Bias, Heads, Maps


class HeadLinear(nn.Linear):
    """A linear layer over the heads of each query and key (a 1 x 1 convolution of the maps): `W a + b`.

    Args:
        num_heads: heads h.

    Example:
        >>> HeadLinear(4)(torch.zeros(2, 4, 5, 6)).shape
        torch.Size([2, 4, 5, 6])
    """

    def __init__(self, num_heads: int):
        super().__init__(num_heads, num_heads)

    def forward(self, input: Tensor) -> Tensor:
        """Mix the heads of `(*B, h, N, M)` scores or probabilities."""
        mixed = torch.matmul(self.weight.to(input.dtype), input.flatten(-2))  # (*B, h, N M)
        return mixed.unflatten(-1, input.shape[-2:]) + self.bias[:, None, None]


class HeadMixingAttend(Attend):
    """Softmax attention with a module over heads before the softmax and one after it.

    a = after(softmax(before(q k^T / sqrt(d)) + bias)); y = a v

    Re-attention is `after` alone ("DeepViT", section 4.2), talking heads are both ("Talking-Heads Attention", section
    3). With the identity in both places this is attention. The rows of `a` need not sum to one. The bias is not mixed,
    so that a key hidden by -inf stays hidden from every head.

    Args:
        before: `(*B, h, N, M) -> (*B, h, N, M)` on the scores; the identity by default.
        after: the same on the probabilities.
    """

    def __init__(self, before: nn.Module | None = None, after: nn.Module | None = None):
        super().__init__()
        self.before, self.after = before or nn.Identity(), after or nn.Identity()

    def forward(self, q: Heads, k: Tensor, v: Tensor, bias: Bias | None = None) -> Tensor:
        """Mix the values by the mixed probabilities."""
        return self.after(self.softmax(q, k, bias)).to(v.dtype) @ v

    def softmax(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        """Return the probabilities before heads are mixed by `after`."""
        scores = self.before(q @ k.mT * q.shape[-1] ** -0.5)
        return (scores if bias is None else scores + bias).softmax(-1)

    def maps(self, q: Heads, k: Tensor, bias: Bias | None) -> Maps:
        """Compute the weights by which values are mixed."""
        # A copy: in training mode a BatchNorm would count the same maps twice.
        return deepcopy(self.after)(self.softmax(q, k, bias))
