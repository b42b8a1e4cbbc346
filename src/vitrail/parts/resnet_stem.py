"""Stems of ResNets."""

from torch import nn


def conv_norm_relu(before: int, after: int, kernel_size: int, stride: int) -> nn.Sequential:
    """Return a convolution without bias, its batch normalisation and a ReLU."""
    conv = nn.Conv2d(before, after, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


def plain_stem(channels: int, dim: int) -> nn.Module:
    """Return ResNet's 7 x 7 convolution of stride 2, its norm and ReLU.

    "Deep Residual Learning for Image Recognition", table 1.
    """
    return conv_norm_relu(channels, dim, 7, 2)
