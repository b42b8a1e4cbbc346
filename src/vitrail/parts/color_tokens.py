"""Pixels as tokens: each pixel becomes the nearest of a few hundred colors."""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.shapes import Image


class ColorTokens(nn.Module):
    """One token for each pixel: the learned vector of the color cluster that is nearest to it.

    x_i = E[argmin_k |pixel_i - c_k|^2]

    "Generative Pretraining from Pixels", section 3.1. The table has one more row, the start token of generation. The
    clusters are a buffer: those of the published weights come with Hugging Face's image processor and are not part of
    its weights; until they are set, the clusters are a regular grid of colors in [-1, 1].

    Args:
        in_channels: channels of the image.
        dim: channels C of a token.
        colors: number of clusters.
        grid: rows and columns of pixels that the model was made for.

    Raises:
        VitrailError: if the image has another size.

    Example:
        >>> x, grid = ColorTokens(3, 8, colors=512, grid=Grid(4, 4))(torch.zeros(1, 3, 4, 4))
        >>> x.shape, grid
        (torch.Size([1, 16, 8]), Grid(h=4, w=4, prefix=0))
    """

    clusters: Tensor

    def __init__(self, in_channels: int, dim: int, colors: int, grid: Grid):
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(colors + 1, dim))
        self.register_buffer("clusters", regular_colors(colors, in_channels))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Quantise and look up."""
        if images.shape[-2:] != (self.grid.h, self.grid.w):
            raise VitrailError(
                f"This model reads images of {self.grid.h} x {self.grid.w} pixels, one token each, got "
                f"{images.shape[-2]} x {images.shape[-1]}.\nResize the image, or create the model with image_size=... "
                "and train it there."
            )
        return embedding(self.quantise(images).flatten(1), self.table), self.grid

    def quantise(self, images: Image) -> Tensor:
        """Return the index of the nearest cluster of each pixel, `(B, Y, X)`; distances are taken in fp32."""
        pixels = images.permute(0, 2, 3, 1).float()  # (B, Y, X, C)
        clusters = self.clusters.float()
        distances = clusters.square().sum(1) - 2 * (pixels @ clusters.mT)  # |pixel|^2 is the same for all clusters
        return distances.argmin(dim=-1)


def regular_colors(colors: int, channels: int) -> Tensor:
    """Return `(colors, channels)`: the first points of a regular grid over [-1, 1]^channels.

    Example:
        >>> regular_colors(3, 1).flatten().tolist()
        [-1.0, 0.0, 1.0]
    """
    side = 2
    while side**channels < colors:
        side += 1
    places = torch.arange(colors)[:, None] // side ** torch.arange(channels)
    return (places % side) * (2.0 / (side - 1)) - 1
