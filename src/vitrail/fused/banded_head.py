"""Upsampling heads of restorers computed in bands of rows: the maps between their convolutions stay small."""

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import has_hooks
from vitrail.parts.reconstruction import WIDTH, NearestConv, PixelShuffleSteps
from vitrail.shapes import Image

BAND = 16 << 20
"""Bytes of the largest map of a band, in fp32."""
ROWS = 32
"""Least rows of a band without its halo."""
HALO = 4
"""Rows on each side that a band shares with its neighbours.

The convolutions of a head reach less than three rows of its input: one before upsampling, at most 1 + 1/2 + 1/4 between
steps, and fractions of one after them. Four keep the 4 x 4 tiles of Winograd's convolutions where they are in the whole
map; results differ by rounding only.
"""


class BandedHead(nn.Module):
    """A head of 3 x 3 convolutions and upsampling, a band of rows at a time.

    Classical super-resolution has 64 channels at the size of the output: 67 MB for x2 of a 256 x 256 image, twice; 1 GB
    for x8.

    Args:
        head: `(features, image) -> image`, which reads only the features.
        scale: rows of the output for one of the input.

    Example:
        >>> head = PixelShuffleSteps(8, 3, scale=2)
        >>> features, image = torch.randn(1, 8, 75, 16), torch.zeros(1, 3, 75, 16)
        >>> torch.allclose(BandedHead(head, 2)(features, image), head(features, image), atol=1e-6)
        True
    """

    def __init__(self, head: nn.Module, scale: int):
        super().__init__()
        self.head, self.scale = head, scale

    def forward(self, features: Tensor, image: Image) -> Tensor:
        """Upsample the features."""
        batch, _, height, width = features.shape
        row = batch * width * WIDTH * self.scale**2 * 4
        rows = max(ROWS, (BAND // max(row, 1) - 2 * HALO) // HALO * HALO)
        if height <= rows + 2 * HALO:
            return self.head(features, image)
        bands = []
        for start in range(0, height, rows):
            first, end = max(start - HALO, 0), min(start + rows, height)
            band = self.head(features[:, :, first : end + HALO], image)
            bands.append(band[:, :, (start - first) * self.scale : (end - first) * self.scale].clone())
        return torch.cat(bands, dim=2)


def in_bands(head: nn.Module, scale: int) -> nn.Module:
    """Return a head in bands if it convolves at the size of the output; others as they are.

    Args:
        head: of a restorer.
        scale: rows of the output for one of the input.
    """
    return BandedHead(head, scale) if type(head) in (PixelShuffleSteps, NearestConv) and not has_hooks(head) else head
