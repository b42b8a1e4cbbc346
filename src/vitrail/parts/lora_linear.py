"""A frozen linear layer with a trained change of low rank."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class LoRALinear(nn.Module):
    """Linear layer of frozen weight W with a trained product of rank r: `y = W x + b + (alpha / r) B (A x)`.

    "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1. A begins as in the authors' code (Kaiming,
    uniform) and B with zeros, so at first the layer computes exactly the same as its base.

    Args:
        base: the frozen layer.
        rank: channels r between A and B.
        alpha: numerator of the scale.

    Example:
        >>> layer = LoRALinear(nn.Linear(8, 6), rank=2, alpha=4.0)
        >>> x = torch.ones(1, 5, 8)
        >>> torch.equal(layer(x), layer.base(x)), layer.scale
        (True, 2.0)
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        like: dict[str, Any] = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.a = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the frozen layer and add the trained change."""
        return self.base(x) + self.scale * linear(linear(x, self.a), self.b)

    def merged(self) -> nn.Linear:
        """Return a plain linear layer of weight `W + (alpha / r) B A`."""
        with torch.device("meta"):
            plain = nn.Linear(self.in_features, self.out_features, bias=self.base.bias is not None)
        weight = self.base.weight.detach().double() + self.scale * (self.b.detach().double() @ self.a.detach().double())
        plain.weight = nn.Parameter(weight.to(self.base.weight.dtype))
        plain.bias = None if self.base.bias is None else nn.Parameter(self.base.bias.detach())  # pyright: ignore[reportAttributeAccessIssue]
        return plain.train(self.training)

    @property
    def in_features(self) -> int:
        """Channels of the input."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """Channels of the output."""
        return self.base.out_features

    @property
    def bias(self) -> Tensor | None:
        """The bias, which window attention reads for padding."""
        return self.base.bias

    @property
    def weight(self) -> Tensor:
        """The weight that the layer applies, `(out, in)`; changing it changes nothing."""
        return self.base.weight + self.scale * (self.b @ self.a)
