"""Convolution, batch norm, ReLU: the unit of segmentation decoders."""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from vitrail.parts.convolutions import ChannelsFirst


class MapBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes the running statistics if a channel has one value only.

    One value has no variance: pyramid pooling to 1 x 1 of a single image would end a training with an error.
    """

    def forward(self, input: ChannelsFirst) -> Tensor:
        """Normalise."""
        if self.training and input.numel() == input.shape[1]:
            return batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class ConvNormAct(nn.Module):
    """A convolution without bias, batch norm, ReLU; the size of the map is kept.

    Args:
        in_channels: channels before.
        out_channels: channels after.
        kernel_size: odd side of the filters.

    Example:
        >>> ConvNormAct(4, 8, 3)(torch.zeros(2, 4, 5, 6)).shape
        torch.Size([2, 8, 5, 6])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = MapBatchNorm(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, cells: ChannelsFirst) -> Tensor:
        """Convolve, normalise, rectify."""
        return torch.relu(self.norm(self.conv(cells)))
