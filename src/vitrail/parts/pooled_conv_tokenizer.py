"""Tokens of a small convolutional network: convolution, ReLU, max pooling."""

from itertools import pairwise

from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import channels_last, to_tokens
from vitrail.shapes import Image


class PooledConvTokenizer(nn.Module):
    """Layers of convolution without bias, ReLU and 3 x 3 max pooling of stride 2: `pool(relu(W * x))`.

    "Escaping the Big Data Paradigm with Compact Transformers", section 3.3, equation 6. Every size works: a side n
    becomes ceil(n / stride), then half of it, rounded up.

    Args:
        in_channels: channels of the image.
        dim: channels C of a token.
        kernel_size: odd side k of the filters; the map is padded by k // 2 zeros on every side.
        stride: step of the convolutions.
        layers: number of layers; 64 channels between them.

    Example:
        >>> import torch
        >>> x, grid = PooledConvTokenizer(3, 128, kernel_size=3, layers=2)(torch.zeros(1, 3, 32, 30))
        >>> x.shape, grid
        (torch.Size([1, 64, 128]), Grid(h=8, w=8, prefix=0))
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int = 3, stride: int = 1, layers: int = 1):
        super().__init__()
        widths = [in_channels, *[64] * (layers - 1), dim]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size, stride, padding=kernel_size // 2, bias=False)
            for before, after in pairwise(widths)
        )
        self.pool = nn.Sequential(nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convolve and pool, layer by layer."""
        cells = channels_last(images)
        for conv in self.convs:
            cells = self.pool(conv(cells))
        return to_tokens(cells)
