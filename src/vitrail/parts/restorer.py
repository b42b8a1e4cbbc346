"""Image in, restored image out: a backbone on a map of shallow features, between normalisation and reconstruction."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrail.grid import Grid, may_be_nonzero
from vitrail.parts.backbone import Backbone, Features
from vitrail.parts.convolutions import channels_last, to_map, to_tokens
from vitrail.parts.model import Model, ModelKind, ModelLayer
from vitrail.shapes import Image


class MapTokens(nn.Module):
    """Embedding of a feature map: each cell is a token, normalised.

    Args:
        dim: channels C of the map.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, cells: Image) -> tuple[Tensor, Grid]:
        """Return `(B, h w, C)` tokens and their grid."""
        tokens, grid = to_tokens(channels_last(cells))
        return self.norm(tokens), grid


class ProjectedMapTokens(MapTokens):
    """Embedding of a feature map through a linear projection of each cell (Swin2SR).

    Args:
        dim: channels C of the map.
    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, cells: Image) -> tuple[Tensor, Grid]:
        """Return `(B, h w, C)` tokens and their grid."""
        return super().forward(self.proj(cells))


class Restorer(Model):
    """Restoration of images of any size, pixels in [0, 1].

    s = shallow(normalise(image));  y = head(s + fuse(backbone(s)), image)

    "SwinIR: Image Restoration Using Swin Transformer", section 3.1. The image is padded at the right and bottom by
    reflection to a multiple of `multiple`, and the output is cropped.

    Args:
        shallow: 3 x 3 convolution, `(B, c, Y, X) -> (B, C, Y, X)`.
        backbone: `(B, C, Y, X) -> Features`, one token a pixel.
        fuse: convolution of the deep features before the long skip connection.
        head: `(features, image) -> image`; see `reconstruction`.
        scale: pixels of the output for one of the input, on each axis.
        multiple: side of a window, in pixels.
        mean: subtracted from each channel.
        pixel_range: factor of the normalised pixels: 1, or 255 for JPEG artifacts.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = {"restore": ModelKind("A model that restores images", "image-to-image")}
    task: str = "restore"
    backbone: Backbone  # pyright: ignore[reportIncompatibleVariableOverride]
    mean: Tensor

    def __init__(
        self,
        shallow: nn.Module,
        backbone: Backbone,
        fuse: nn.Module,
        head: nn.Module,
        scale: int,
        multiple: int,
        mean: tuple[float, ...],
        pixel_range: float,
    ):
        super().__init__()
        self.shallow, self.backbone, self.fuse, self.head = shallow, backbone, fuse, head
        self.scale, self.multiple, self.pixel_range = scale, multiple, pixel_range
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)

    def layers(self) -> list[ModelLayer]:
        """List shallow convolution and embedding, the blocks, and last norm, fusion and head."""
        first, *blocks, last = super().layers()
        first.modules.insert(0, self.shallow)
        last.modules.insert(1, self.fuse)
        return [first, *blocks, last]

    def features(self, images: Image) -> Features:
        """Return tokens, grid and pyramid of the padded images."""
        return self.backbone(self.shallow(self._normalise(images)))

    def forward(self, images: Image) -> Tensor:
        """Return restored images `(B, c, scale Y, scale X)`; values may leave [0, 1] slightly."""
        height, width = images.shape[-2:]
        x = self._normalise(images)
        shallow = self.shallow(x)
        tokens, grid = self.backbone.last_tokens(shallow)
        features = self.fuse(to_map(tokens, grid))
        features += shallow
        del shallow, tokens  # the head has the largest maps
        y = self.head(features, x)
        return (y / self.pixel_range + self.mean)[..., : height * self.scale, : width * self.scale]

    def _normalise(self, images: Image) -> Tensor:
        return (reflect(images, self.multiple) - self.mean) * self.pixel_range


def reflect(images: Image, multiple: int) -> Tensor:
    """Pad images at the right and bottom by reflection to a multiple of a window, whatever their size.

    PyTorch's reflection refuses padding as large as the image; this one goes back and forth as often as needed.

    Example:
        >>> reflect(torch.arange(3.0).reshape(1, 1, 1, 3), 8).tolist()[0][0][0]
        [0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0]
    """
    for axis in (-2, -1):
        length = images.shape[axis]
        if may_be_nonzero(length % multiple):
            last = torch.arange(length, device=images.device).amax(0, keepdim=True)  # a tensor, for symbolic sizes
            period = (2 * last).clamp(min=1)
            padded = (length + multiple - 1) // multiple * multiple  # ONNX rounds quotients of negative numbers up
            place = torch.remainder(torch.arange(padded, device=images.device), period)
            images = images.index_select(axis, torch.minimum(torch.minimum(place, period - place), last))
    return images
