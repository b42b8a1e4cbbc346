"""Images as arrays of pixels with their positions, the input of a Perceiver: `images -> (B, M, C)`."""

import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.convolutions import channels_last, to_tokens
from vitrail.parts.positions import LearnedPosition
from vitrail.shapes import Image

BANDS = 64


def fourier_features(grid: Grid, bands: int, resolution: int, like: Tensor) -> Tensor:
    """Return the position of each cell as sines and cosines, `(M, 2 + 4 bands)`.

    p, sin(pi f_k p), cos(pi f_k p), with p the row and column in [-1, 1] and f_k evenly spaced from 1 to resolution / 2

    "Perceiver: General Perception with Iterative Attention", section 3.2. The highest frequency is the Nyquist
    frequency of `resolution` and does not change with the image.

    Example:
        >>> fourier_features(Grid(2, 3), bands=4, resolution=8, like=torch.zeros(1)).shape
        torch.Size([6, 18])
    """
    axes = [spread(torch.arange(n, dtype=torch.float64, device=like.device)) for n in (grid.h, grid.w)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)  # (M, 2)
    angles = places[:, :, None] * torch.linspace(1, resolution / 2, bands, device=like.device)  # (M, 2, bands)
    angles = torch.pi * angles.flatten(1)
    return torch.cat([places, angles.sin(), angles.cos()], dim=1).to(like.dtype)


def spread(places: Tensor) -> Tensor:
    """Return `linspace(-1, 1, n)` bit for bit, which has no form for a number of places that a program leaves open.

    Args:
        places: 0 to n - 1 in fp64.

    Example:
        >>> spread(torch.arange(5).double()).tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    last = places.amax(0, keepdim=True)  # a slice of one has a size that exporters do not know to be 1
    step = (2 / last.clamp(min=1).float()).double()  # of fp32; product and sum are rounded once
    low, high = step * places - 1, 1 - step * (last - places)
    return torch.where((places < last - places) | (last == 0), low, high).float()


def with_fourier(cells: Tensor, grid: Grid, resolution: int) -> Tensor:
    """Append the Fourier features of each place to `(B, M, C)`."""
    positions = fourier_features(grid, BANDS, resolution, cells)
    return torch.cat([cells, positions.expand(cells.shape[0], -1, -1)], dim=2)


class FourierPixels(nn.Module):
    """Every pixel, concatenated with the Fourier features of its position.

    Args:
        in_channels: channels of the image.
        resolution: side of the image that the frequencies are made for.
    """

    def __init__(self, in_channels: int, resolution: int = 224):
        super().__init__()
        self.resolution = resolution
        self.dim = in_channels + 2 + 4 * BANDS

    def forward(self, images: Image) -> Tensor:
        """Return `(B, Y X, C)`."""
        return with_fourier(*to_tokens(images), self.resolution)


class LearnedPixels(nn.Module):
    """A 1 x 1 convolution of every pixel, followed by the projection of a learned vector of its place.

    Args:
        in_channels: channels of the image.
        grid: rows and columns of pixels that the table is made for; it is resized for other images.
        width: channels of each half.
    """

    def __init__(self, in_channels: int, grid: Grid, width: int = 256):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, kernel_size=1)
        self.position = LearnedPosition(width, grid)
        self.proj = nn.Linear(width, width)
        self.dim = 2 * width

    def forward(self, images: Image) -> Tensor:
        """Return `(B, Y X, 2 width)`."""
        pixels, grid = to_tokens(self.conv(channels_last(images)))
        places, _ = self.position(torch.zeros_like(pixels[:1]), grid)
        return torch.cat([pixels, self.proj(places).expand_as(pixels)], dim=2)


class FourierConvolution(nn.Module):
    """A 7 x 7 convolution and max pooling, four pixels a step, concatenated with Fourier features of each position.

    "Perceiver IO", appendix A. The convolution pads 3 zeros on every side and the pooling none, as in Hugging Face; the
    authors' code pads 2 before and 3 after.

    Args:
        in_channels: channels of the image.
        width: channels after the convolution.
        resolution: side of the map that the frequencies are made for.
    """

    def __init__(self, in_channels: int, width: int = 64, resolution: int = 56):
        super().__init__()
        self.resolution = resolution
        self.conv = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.dim = width + 2 + 4 * BANDS

    def forward(self, images: Image) -> Tensor:
        """Return `(B, M, C)`, M about 1 / 16 of the pixels."""
        cells = self.norm(self.conv(channels_last(images))).relu()
        return with_fourier(*to_tokens(self.pool(cells)), self.resolution)
