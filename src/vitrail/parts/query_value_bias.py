"""Projection to queries, keys and values without a bias of the keys."""

import torch
from torch import Tensor, nn

from vitrail.shapes import Tokens


class QueryValueBias(nn.Module):
    """Queries, keys and values of tokens; the keys have no bias: `(q, k, v) = W x + (b_q, 0, b_v)`.

    "Swin Transformer V2", the authors' code. In dot-product attention a bias of the keys adds the same number to all
    scores of a query and has no effect; with cosine attention it would have one.

    Args:
        dim: channels C.

    Example:
        >>> QueryValueBias(8)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 24])
    """

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))

    @property
    def in_features(self) -> int:
        """Channels of the tokens, as of a linear layer."""
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        """Channels of queries, keys and values together."""
        return self.linear.out_features

    @property
    def weight(self) -> Tensor:
        """The weights `(3 C, C)`, as of a linear layer."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor:
        """Projection of zeros, `(3 C,)`: that of padding."""
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def forward(self, x: Tokens) -> Tensor:
        """Project: `(B, N, C) -> (B, N, 3 C)`."""
        y = self.linear(x)
        return y + self.bias.to(y.dtype)
