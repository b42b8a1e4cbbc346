"""Bilinear resizing of maps."""

from collections.abc import Sequence
from typing import Any

from torch import SymInt, Tensor
from torch.nn.functional import interpolate

from vitrail.grid import may_be_nonzero
from vitrail.parts.convolutions import ChannelsFirst


def resize_map(cells: ChannelsFirst, size: Sequence[int | SymInt]) -> Tensor:
    """Resize a map bilinearly; edges of pixels are aligned, not their centres (`align_corners=False`).

    Example:
        >>> import torch
        >>> resize_map(torch.zeros(1, 8, 4, 4), (6, 9)).shape
        torch.Size([1, 8, 6, 9])
    """
    if not may_be_nonzero(*(side - wanted for side, wanted in zip(cells.shape[2:], size, strict=True))):
        return cells
    target: Any = tuple(size)  # symbolic while a program is exported
    return interpolate(cells, size=target, mode="bilinear", align_corners=False)


def upsample_and_crop(cells: ChannelsFirst, stride: int, size: Sequence[int | SymInt]) -> Tensor:
    """Bring a map to the pixels of its images.

    Images are padded at the right and bottom to whole patches, so the map covers `stride * h` rows: it is resized to
    these and cropped. A map that covers less is resized to the image.

    Args:
        cells: `(B, K, h, w)`.
        stride: pixels per cell side.
        size: height and width of the images.

    Example:
        >>> import torch
        >>> upsample_and_crop(torch.arange(2.0).reshape(1, 1, 1, 2), 2, (1, 3)).flatten().tolist()
        [0.0, 0.25, 0.75]
    """
    covered = [max(stride * side, pixels) for side, pixels in zip(cells.shape[2:], size, strict=True)]
    return resize_map(cells, covered)[..., : size[0], : size[1]]
