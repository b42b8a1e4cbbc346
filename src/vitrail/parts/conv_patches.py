"""Patches by a chain of small convolutions, each of which halves the map."""

from itertools import pairwise

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.convolutions import channels_last, to_tokens
from vitrail.shapes import Image


class ConvPatches(nn.Module):
    """Convolutions of 3 x 3 and stride 2 with BatchNorm, GELU between them; channels double from one to the next.

    "XCiT: Cross-Covariance Image Transformers", section 3.4. Each halves a side, rounded up, so every size works.

    Args:
        in_channels: channels of the image.
        dim: channels C of a token, after the last convolution.
        patch_size: side p of a patch in pixels, a power of two; log2(p) convolutions.

    Raises:
        VitrailError: if the patch size is no power of two.

    Example:
        >>> import torch
        >>> x, grid = ConvPatches(3, 32, patch_size=8)(torch.zeros(1, 3, 30, 64))
        >>> x.shape, grid
        (torch.Size([1, 32, 32]), Grid(h=4, w=8, prefix=0))
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int):
        super().__init__()
        steps = patch_size.bit_length() - 1
        if patch_size < 2 or patch_size != 2**steps:
            raise VitrailError(f"Patches by convolutions need a patch_size of 2, 4, 8, 16 or 32, got {patch_size}.")
        widths = [in_channels, *(dim // 2 ** (steps - 1 - i) for i in range(steps))]
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.act = nn.GELU()

    def forward(self, images: Image) -> tuple[Tensor, Grid]:
        """Convolve step by step."""
        cells = channels_last(images)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            cells = norm(conv(self.act(cells) if i else cells))
        return to_tokens(cells)
