"""Norms beyond LayerNorm."""

from torch import Tensor, nn
from torch.nn.functional import group_norm

from vitrail.shapes import Tokens


class MapGroupNorm(nn.GroupNorm):
    """Group normalisation of a `(B, C, h, w)` map that lies channels last in memory.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, mean and var over the cells and channels of one group

    "Group Normalization", section 3.1. PyTorch's channels-last kernel computes var as E[x^2] - E[x]^2, which loses
    digits where the mean is far from zero; the mean is therefore taken off first, which changes nothing else.

    Args:
        num_groups: groups that the channels are divided into.
        num_channels: channels C.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise."""
        means = input.mean(dim=(2, 3)).unflatten(1, (self.num_groups, -1))  # (B, groups, C / groups)
        mean = means.mean(dim=2, keepdim=True).expand_as(means).flatten(1)  # -> (B, C)
        return group_norm(input - mean[..., None, None], self.num_groups, self.weight, self.bias, self.eps)


class TokenGroupNorm(MapGroupNorm):
    """Group normalisation over the tokens of a picture and the channels of a group.

    With one group it is PoolFormer's norm, which is not LayerNorm: that one looks at each token alone.

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


class GroupNormReLU(MapGroupNorm):
    """Group normalisation of a map, then ReLU in place: what stands between a ResNet's convolutions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise and cut off what is negative."""
        return super().forward(input).relu_()
