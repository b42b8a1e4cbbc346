"""A linear layer as the product of two thin ones."""

from torch import Tensor, nn


class FactorizedLinear(nn.Module):
    """Linear layer of rank r: `U (V x) + b`, with r (in + out) weights instead of in out.

    "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation", section 3.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        rank: channels r between the two layers.
        bias: whether there is a bias b.

    Example:
        >>> import torch
        >>> FactorizedLinear(8, 6, rank=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 6])
    """

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = True):
        super().__init__()
        self.first, self.second = nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both factors to `(..., in)`."""
        return self.second(self.first(x))

    @property
    def in_features(self) -> int:
        """Channels of the input."""
        return self.first.in_features

    @property
    def out_features(self) -> int:
        """Channels of the output."""
        return self.second.out_features

    @property
    def rank(self) -> int:
        """Channels between the layers."""
        return self.first.out_features

    @property
    def bias(self) -> Tensor | None:
        """The bias, which window attention reads for padding."""
        return self.second.bias

    @property
    def weight(self) -> Tensor:
        """The product of both factors, `(out, in)`; changing it changes nothing."""
        return self.second.weight @ self.first.weight
