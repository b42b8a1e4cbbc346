"""Reconstruction heads of restoration models: from deep features and the input image to the output image.

`forward(features: (B, C, h, w), image: (B, c, h, w)) -> (B, c, scale h, scale w)`; only `ResidualImage` uses the image.
"SwinIR: Image Restoration Using Swin Transformer", section 3.1; the details are those of the authors' code.
"""

from math import log2

from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from vitrail.errors import VitrailError, unknown
from vitrail.shapes import Image

WIDTH = 64
"""Channels between upsampling convolutions, in all published variants."""


class PixelShuffleSteps(nn.Module):
    """Upsampling by sub-pixel convolutions in steps of 2, or one step of 3 (classical super-resolution).

    Args:
        dim: channels C of the features.
        channels: channels c of the image.
        scale: 3 or a power of 2 from 2 up.

    Raises:
        VitrailError: for another scale.

    Example:
        >>> import torch
        >>> PixelShuffleSteps(8, 3, scale=4)(torch.zeros(1, 8, 5, 6), torch.zeros(1, 3, 5, 6)).shape
        torch.Size([1, 3, 20, 24])
    """

    def __init__(self, dim: int, channels: int, scale: int):
        super().__init__()
        self.before = nn.Conv2d(dim, WIDTH, 3, padding=1)
        self.steps = nn.Sequential(*_shuffle_steps(scale))
        self.last = nn.Conv2d(WIDTH, channels, 3, padding=1)

    def forward(self, features: Tensor, image: Image) -> Tensor:
        """Upsample the features."""
        return self.last(self.steps(leaky_relu(self.before(features), 0.01)))


def _shuffle_steps(scale: int) -> list[nn.Module]:
    factors = [3] if scale == 3 else [2] * max(round(log2(max(scale, 1))), 0)
    if scale < 2 or (scale != 3 and 2 ** len(factors) != scale):
        raise VitrailError(f"Pixel shuffle upsamples by 3 or a power of 2, got scale {scale}. Published: 2, 3, 4, 8.")
    return [
        layer
        for factor in factors
        for layer in (nn.Conv2d(WIDTH, factor**2 * WIDTH, 3, padding=1), nn.PixelShuffle(factor))
    ]


class PixelShuffleDirect(nn.Module):
    """Upsampling by one sub-pixel convolution (lightweight super-resolution).

    Args:
        dim: channels C of the features.
        channels: channels c of the image.
        scale: any whole number from 1 up.
    """

    def __init__(self, dim: int, channels: int, scale: int):
        super().__init__()
        self.steps = nn.Sequential(nn.Conv2d(dim, scale**2 * channels, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, features: Tensor, image: Image) -> Tensor:
        """Upsample the features."""
        return self.steps(features)


class NearestConv(nn.Module):
    """Upsampling by nearest-neighbour interpolation and convolutions, in steps of 2 (real-world super-resolution).

    Sub-pixel convolutions leave a checkerboard under adversarial training; these do not.

    Args:
        dim: channels C of the features.
        channels: channels c of the image.
        scale: 2 or 4.

    Raises:
        VitrailError: for another scale.
    """

    def __init__(self, dim: int, channels: int, scale: int):
        super().__init__()
        if scale not in (2, 4):
            raise VitrailError(f"The nearest+conv upsampler has scale 2 or 4, got {scale}. Try pixelshuffle.")
        self.before = nn.Conv2d(dim, WIDTH, 3, padding=1)
        self.ups = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(scale // 2))
        self.refine = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.last = nn.Conv2d(WIDTH, channels, 3, padding=1)

    def forward(self, features: Tensor, image: Image) -> Tensor:
        """Upsample the features."""
        x = leaky_relu(self.before(features), 0.01)
        for conv in self.ups:
            x = leaky_relu(conv(interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.last(leaky_relu(self.refine(x), 0.2))


class ResidualImage(nn.Module):
    """The input image plus a convolution of the features (denoising, removal of JPEG artifacts).

    Args:
        dim: channels C of the features.
        channels: channels c of the image.
        scale: 1.

    Raises:
        VitrailError: for another scale.
    """

    def __init__(self, dim: int, channels: int, scale: int):
        super().__init__()
        if scale != 1:
            raise VitrailError(f"A model without upsampler has scale 1, got {scale}. Choose upsampler=pixelshuffle.")
        self.last = nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, features: Tensor, image: Image) -> Tensor:
        """Add the predicted residual to the image."""
        return image + self.last(features)


UPSAMPLERS: dict[str, type[nn.Module]] = {
    "pixelshuffle": PixelShuffleSteps,
    "pixelshuffledirect": PixelShuffleDirect,
    "nearest+conv": NearestConv,
    "none": ResidualImage,
}
"""The heads by the names of SwinIR's code."""

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of DIV2K's pixels, subtracted from colour images."""


def reconstruction_head(upsampler: str, dim: int, channels: int, scale: int) -> nn.Module:
    """Return the head of a name.

    Raises:
        VitrailError: the name is unknown, or the scale does not fit it.

    Example:
        >>> type(reconstruction_head("none", 8, 3, 1)).__name__
        'ResidualImage'
    """
    if upsampler not in UPSAMPLERS:
        raise unknown("upsampler", upsampler, UPSAMPLERS)
    return UPSAMPLERS[upsampler](dim, channels, scale)


def image_mean(channels: int) -> tuple[float, ...]:
    """Return the mean that is subtracted from images: zero of other than three channels.

    Example:
        >>> image_mean(1)
        (0.0,)
    """
    return RGB_MEAN if channels == len(RGB_MEAN) else (0.0,) * channels
