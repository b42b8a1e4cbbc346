"""Norms of tokens beyond LayerNorm."""

from torch import Tensor, nn

from vitrail.shapes import Tokens


class TokenGroupNorm(nn.GroupNorm):
    """Group normalisation over tokens: mean and variance are shared by all tokens and by the channels of a group.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, mean and var over (N, C / groups) of one picture

    "Group Normalization", section 3.1. With one group it is PoolFormer's norm, which is not LayerNorm: that one looks at
    each token alone.

    Args:
        num_groups: groups that the channels are divided into.
        num_channels: channels C.

    Example:
        >>> import torch
        >>> y = TokenGroupNorm(1, 8)(torch.randn(2, 6, 8))
        >>> bool((y.mean(dim=(1, 2)).abs() < 1e-6).all())
        True
    """

    def forward(self, input: Tokens) -> Tensor:
        """Normalise."""
        column = input[:, :, None].permute(0, 3, 1, 2)  # (B, N, C) -> (B, C, N, 1), channels last in memory
        return super().forward(column)[..., 0].transpose(1, 2)  # -> (B, N, C)


class GroupNormReLU(nn.GroupNorm):
    """Group normalisation of a `(B, C, h, w)` map, then ReLU in place: what stands between a ResNet's convolutions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise and cut off what is negative."""
        return super().forward(input).relu_()
