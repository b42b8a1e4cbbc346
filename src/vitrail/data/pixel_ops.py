"""Pixel operations: crop and resize, shift and flip, normalise.

Here it is done by Pillow and PyTorch. `native/image_resize.py` has it compiled: the same pixels, to the bit, sooner.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.data.augment import flip, pad_crop
from vitrail.data.stateless_rng import BatchRng
from vitrail.preprocess import Preprocess

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge; right and lower are beyond it."""

Pair = tuple[int, int]


class PixelOps:
    """The plain way.

    Example:
        >>> image = Image.new("RGB", (50, 40))
        >>> PixelOps().resize(image, (0, 0, 50, 40), (20, 16), (2, 0), 16, "bicubic").shape
        torch.Size([3, 16, 16])
    """

    def resize(
        self,
        image: Image.Image,
        box: Box,
        size: tuple[int, int],
        corner: tuple[int, int],
        side: int,
        interpolation: str,
    ) -> Tensor:
        """Resize a part of an image, and keep a square of the result.

        Args:
            image: of mode `RGB` or `L`.
            box: the part.
            size: width and height that it is resized to.
            corner: left and upper edge of the square; where it reaches beyond, there is black.
            side: of the square.
            interpolation: one of `FILTERS`.

        Returns:
            `(C, side, side)` of uint8.
        """
        if box != (0, 0, *image.size):
            image = image.crop(box)
        if image.size != size:
            image = image.resize(size, FILTERS[interpolation])
        left, top = corner
        if (*corner, *size) != (0, 0, side, side):
            image = image.crop((left, top, left + side, top + side))
        values = np.array(image).reshape(side, side, -1)
        return torch.from_numpy(values).permute(2, 0, 1)  # (Y, X, C) -> (C, Y, X)

    def move(self, pixels: Tensor, draws: BatchRng, padding: int, border: str, mirror: float) -> Tensor:
        """Cut a window at a random place of each padded image, then mirror some.

        Args:
            pixels: `(B, C, Y, X)` of uint8.
            draws: the draws of the batch.
            padding: see `augment.pad_crop`; with 0 nothing is cut.
            border: as there.
            mirror: probability of a left-right flip.
        """
        if padding:
            pixels = pad_crop(pixels, draws, padding, border)
        return flip(pixels, draws, mirror) if mirror else pixels

    def normalize(self, pixels: Tensor, preprocess: Preprocess) -> Tensor:
        """Scale `(B, C, Y, X)` of uint8 to 0..1, subtract the mean, divide by the deviation; grey becomes colour."""
        if pixels.shape[1] == 1 and preprocess.channels == 3:
            pixels = pixels.expand(-1, 3, -1, -1)
        most, mean, std = _statistics(preprocess, pixels.device)
        images = torch.empty(pixels.shape, device=pixels.device)
        step = (
            1 if pixels.device.type == "cpu" else max(1, len(pixels))
        )  # on a CPU each of the four steps finds it cached
        for first in range(0, len(pixels), step):
            part = slice(first, first + step)
            images[part].copy_(pixels[part]).div_(most).sub_(mean).div_(std)
        return images


def _statistics(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return 255, mean and deviation; a GPU would multiply by the inverse of a plain 255, and be off by a bit."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return torch.tensor(255.0, device=device), mean, std


PLAIN = PixelOps()
