"""Activations beyond those of PyTorch."""

import torch
from torch import Tensor, nn


class SquaredReLU(nn.Module):
    """The square of the positive part: `max(x, 0)^2`.

    "Primer: Searching for Efficient Transformers for Language Modeling", section 4.

    Example:
        >>> SquaredReLU()(torch.tensor([-1.0, 3.0])).tolist()
        [0.0, 9.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each element."""
        return x.relu().square()


class StarReLU(nn.Module):
    """Squared ReLU with a learned scale and bias, both scalars: `s max(x, 0)^2 + b`.

    "MetaFormer Baselines for Vision", section 3.3. The paper derives s = 0.8944 and b = -0.4472 for a normal input; the
    authors' code starts at s = 1 and b = 0, as here.

    Example:
        >>> StarReLU()(torch.tensor([-1.0, 3.0])).tolist()
        [0.0, 9.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each element."""
        return self.scale * x.relu().square() + self.bias


class QuickGELU(nn.Module):
    """Sigmoid approximation of GELU: `x sigmoid(1.702 x)`.

    "Gaussian Error Linear Units", section 2; used by iGPT and CLIP.

    Example:
        >>> QuickGELU()(torch.zeros(1)).item()
        0.0
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each element."""
        return x * torch.sigmoid(1.702 * x)
