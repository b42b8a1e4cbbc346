"""A language model whose words are colours: images as sequences of the nearest of a few colours."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrail.parts.color_tokens import regular_colors
from vitrail.parts.sequence_model import SequenceBackbone, TiedModel
from vitrail.shapes import Image


class PixelModel(TiedModel):
    """Predicts each pixel from those before it in raster order; the first follows a start token, the last id.

    "Generative Pretraining from Pixels", section 3.1.

    Args:
        backbone: `(ids, layout) -> Features`.
        head: `(features, table) -> (B, N, K)`, a score for each colour.
        colors: number K of colours.
        channels: channels of a pixel.

    Attributes:
        colors: `(K, channels)`, values in [0, 1]; until they are set, a regular grid.
    """

    described: ClassVar[tuple[str, ...]] = ("colors",)
    colors: Tensor

    def __init__(self, backbone: SequenceBackbone, head: nn.Module, colors: int, channels: int):
        super().__init__(backbone, head)
        self.register_buffer("colors", (regular_colors(colors, channels) + 1) / 2)

    @property
    def start(self) -> int:
        """Id of the start token."""
        return len(self.colors)

    def quantise(self, images: Image) -> Tensor:
        """Return the ids `(B, Y * X)` of images with values in [0, 1]: the nearest colour of each pixel."""
        pixels = images.permute(0, 2, 3, 1).flatten(1, 2).float()  # (B, N, C)
        colors = self.colors.float()
        distances = colors.square().sum(1) - 2 * (pixels @ colors.mT)  # |pixel|^2 is the same for all colours
        return distances.argmin(dim=-1)

    def render(self, ids: Tensor, side: int) -> Tensor:
        """Return images `(B, C, Y, X)` of colour ids `(B, Y * X)`."""
        return self.colors[ids].unflatten(1, (-1, side)).permute(0, 3, 1, 2)

    def shifted(self, ids: Tensor) -> Tensor:
        """Return inputs `(B, N)` that predict ids: the start token, then all but the last."""
        return torch.cat([torch.full_like(ids[:, :1], self.start), ids[:, :-1]], dim=1)
