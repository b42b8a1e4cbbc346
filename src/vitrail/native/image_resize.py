"""Native resizing, cropping and normalisation of images, bit-identical to Pillow and PyTorch."""

import ctypes
from functools import cache

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from vitrail.data.augment import mirrors, offsets
from vitrail.data.pixel_ops import PLAIN, Box, Pair, PixelOps
from vitrail.data.stateless_rng import BatchRng
from vitrail.native.allocator import empty
from vitrail.native.build import Unavailable, built, library
from vitrail.native.ffi import at, invoke
from vitrail.native.pillow_buffer import memory
from vitrail.preprocess import Preprocess

_ENOUGH = 200  # minimum number of images for which compiling this library (some seconds) pays off
_STORED = {"RGB": 4, "L": 1}  # bytes per pixel in Pillow's memory
_REACH = {"bilinear": False, "bicubic": True}


def best_pixels(images: int | None = None) -> PixelOps:
    """Return the fastest pixel operations for a job of this many images (None: many); all are bit-identical.

    Example:
        >>> image = Image.new("RGB", (300, 200), "red")
        >>> call = (image, (0, 0, 300, 200), (96, 64), (16, 0), 64, "bicubic")
        >>> torch.equal(best_pixels(1).resize(*call), PLAIN.resize(*call))
        True
    """
    worth = images is None or images >= _ENOUGH or built("image_resize")
    return Compiled() if worth and agrees() else PLAIN


class Compiled(PixelOps):
    """Native pixel operations; rare cases fall back to Pillow and PyTorch."""

    def resize(
        self,
        image: Image.Image,
        box: Box,
        size: tuple[int, int],
        corner: tuple[int, int],
        side: int,
        interpolation: str,
    ) -> Tensor:
        """Resize a box of an image and crop a square of the result; only the crop is computed.

        Other interpolations, crops that exceed the image, boxes with only one resized side, tiny and huge images fall
        back to Pillow.

        Raises:
            Unavailable: there is no compiler, or it failed.
        """
        stored, part = _STORED.get(image.mode), (box[2] - box[0], box[3] - box[1])
        found = None
        if stored and interpolation in _REACH and min(corner) >= 0 and part[0] != size[0] and part[1] != size[1]:
            found = memory(image)
        if found is None:
            return super().resize(image, box, size, corner, side, interpolation)
        address, holder = found
        planes = torch.empty(len(image.getbands()), side, side, dtype=torch.uint8, device="cpu")
        (wide, tall), (left, top) = size, corner
        done = invoke(
            library("image_resize").vitrail_resize,
            pixels=address,
            width=image.width,
            height=image.height,
            stored=stored,
            box=(ctypes.c_long * 4)(*box),
            wide=wide,
            tall=tall,
            left=left,
            top=top,
            side=side,
            cubic=_REACH[interpolation],
            columns=_columns_first(part, size),
            planes=at(planes),
        )
        del holder  # keeps the pixel buffer alive until here
        return planes if done else super().resize(image, box, size, corner, side, interpolation)

    def move(self, pixels: Tensor, draws: BatchRng, padding: int, border: str, mirror: float) -> Tensor:
        """Take a random crop of each padded image, then flip some horizontally."""
        pixels = pixels.contiguous()
        tops, lefts = offsets(pixels, draws, padding, border)
        flipped = mirrors(draws, mirror).astype(np.uint8)
        moved = torch.empty_like(pixels)
        count, channels, height, width = pixels.shape
        invoke(
            library("image_resize").vitrail_move,
            pixels=at(pixels),
            count=count,
            channels=channels,
            height=height,
            width=width,
            tops=tops.ctypes.data,
            lefts=lefts.ctypes.data,
            flipped=flipped.ctypes.data,
            reflect=border == "reflect",
            moved=at(moved),
        )
        return moved

    def normalize(self, pixels: Tensor, preprocess: Preprocess) -> Tensor:
        """Scale to 0..1, subtract the mean and divide by the standard deviation, in one pass."""
        if pixels.device.type != "cpu":
            return super().normalize(pixels, preprocess)
        pixels = pixels.contiguous()
        batch, given, height, width = pixels.shape
        images = empty(batch, preprocess.channels, height, width, dtype=torch.float32)
        statistics = torch.tensor((preprocess.mean, preprocess.std), dtype=torch.float32, device="cpu")
        invoke(
            library("image_resize").vitrail_normalize,
            pixels=at(pixels),
            count=batch,
            given=given,
            channels=preprocess.channels,
            area=height * width,
            means=at(statistics[0]),
            deviations=at(statistics[1]),
            images=at(images),
            threads=torch.get_num_threads(),
        )
        return images


def _columns_first(part: Pair, size: Pair) -> bool:
    """Return whether Pillow resizes columns first: from version 13 on, if the height shrinks by far more."""
    shorter, narrower = part[1] - size[1], part[0] - size[0]
    return _CHOOSES and shorter > max(0, 2 * narrower)


_CHOOSES = int(PIL.__version__.partition(".")[0]) >= 13


@cache
def agrees() -> bool:
    """Return whether this library compiles and is bit-identical to the installed Pillow; versions may differ."""
    draw = np.random.default_rng(0)
    cases = [
        ((50, 75), (0, 0, 75, 50), (48, 32), (12, 4), 24),
        ((81, 60), (0, 0, 60, 81), (40, 54), (0, 7), 40),
        ((33, 47), (5, 2, 46, 30), (56, 56), (0, 0), 56),
        ((60, 47), (5, 2, 35, 58), (24, 24), (0, 0), 24),
    ]
    try:
        for (height, width), *call in cases:
            values = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
            for image in (Image.fromarray(values), Image.fromarray(values[:, :, 0].copy())):
                for kind in _REACH:
                    ours, plain = (way.resize(image, *call, kind) for way in (Compiled(), PLAIN))  # type: ignore[arg-type]
                    if not torch.equal(ours, plain):
                        return False
    except Unavailable:
        return False
    return True
