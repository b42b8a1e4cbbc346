"""The same small network at every point: linear layers with BatchNorm, as in PointNet."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn


class PointBatchNorm(nn.BatchNorm1d):
    """BatchNorm of channels, over samples and points: `(B, ..., C)`.

    Example:
        >>> import torch
        >>> PointBatchNorm(3)(torch.randn(2, 5, 7, 3)).shape
        torch.Size([2, 5, 7, 3])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel."""
        return super().forward(input.reshape(-1, input.shape[-1])).view(input.shape)


class SharedMLP(nn.Sequential):
    """Layers `act(batch_norm(W x + b))` at each point.

    "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", Qi et al., 2017, section 4.2.

    Args:
        widths: channels of the input and after each layer.
        act: makes the activation; ReLU by default.

    Example:
        >>> import torch
        >>> SharedMLP((3, 8, 16))(torch.randn(2, 5, 3)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(self, widths: Sequence[int], act: Callable[[], nn.Module] = nn.ReLU):
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), PointBatchNorm(outputs), act()]
        super().__init__(*layers)


class SharedMLPHead(nn.Module):
    """Classes from one vector a cloud: a shared MLP with dropout, and a linear layer.

    Args:
        widths: channels of the vector and of the hidden layers.
        num_classes: outputs K; 0 for the vector itself.
        dropout: rate after each hidden layer.
        act: makes the activation.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, dropout: float, act: Callable[[], nn.Module] = nn.ReLU):
        super().__init__()
        layers = [nn.Sequential(SharedMLP(pair, act), nn.Dropout(dropout)) for pair in pairwise(widths)]
        self.layers = nn.Sequential(*layers) if num_classes else nn.Identity()
        self.linear = nn.Linear(widths[-1], num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        return self.linear(self.layers(x))
