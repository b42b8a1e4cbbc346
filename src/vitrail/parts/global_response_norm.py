"""Channels that compete by the length of their response over the image."""

import torch
from torch import Tensor, nn

from vitrail.shapes import Tokens


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its share of the mean response of all channels.

    y = x + gamma * x * n + beta,  n_c = |x_c| / (mean_c |x_c| + eps),  |x_c| the L2 norm over the tokens of one image

    "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", section 3, algorithm 1. gamma and beta
    start at zero, so the layer starts as the identity.

    Args:
        dim: channels C.
        eps: addend to the mean response.

    Example:
        >>> GlobalResponseNorm(2)(torch.ones(1, 3, 2)).shape
        torch.Size([1, 3, 2])
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tokens) -> Tensor:
        """Normalise over tokens and channels."""
        response = torch.linalg.vector_norm(x, dim=1, keepdim=True)  # (B, 1, C)
        return x + torch.addcmul(self.bias, self.weight, x * (response / (response.mean(-1, keepdim=True) + self.eps)))
