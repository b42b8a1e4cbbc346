"""Stems of ResNets."""

from torch import nn


def conv_norm_relu(
    before: int, after: int, kernel_size: int, stride: int, act: nn.Module | None = None
) -> nn.Sequential:
    """Return a convolution without bias, its batch normalisation and a ReLU, or another activation.

    Example:
        >>> import torch
        >>> conv_norm_relu(3, 8, kernel_size=3, stride=2)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """
    conv = nn.Conv2d(before, after, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(after), act or nn.ReLU())


def plain_stem(channels: int, dim: int) -> nn.Module:
    """Return ResNet's 7 x 7 convolution of stride 2, its norm and ReLU.

    "Deep Residual Learning for Image Recognition", table 1.

    Example:
        >>> import torch
        >>> plain_stem(3, 8)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 8, 8, 8])
    """
    return conv_norm_relu(channels, dim, 7, 2)


def tiered_stem(channels: int, dim: int, act: nn.Module | None = None) -> nn.Module:
    """Return three 3 x 3 convolutions, of which the first has stride 2 (timm's "tiered" stem).

    Example:
        >>> import torch
        >>> tiered_stem(3, 8)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 8, 8, 8])
    """
    widths = (3 * dim // 8, dim // 2, dim)
    steps = zip((channels, *widths), widths, (2, 1, 1), strict=False)
    return nn.Sequential(*(conv_norm_relu(before, after, 3, stride, act) for before, after, stride in steps))
