"""Benchmark inputs: real images if given, else synthetic images that differ from one another."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vitrail.data.transform import EvalTransform
from vitrail.preprocess import Preprocess
from vitrail.tasks.image_sources import find_images


def blotches(count: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Draw synthetic normalised images `(count, C, size, size)`: smooth blotches, each with its own contrast.

    White noise is unsuitable: after averaging, all noise images are nearly the same.

    Example:
        >>> blotches(2, 3, 32).shape
        torch.Size([2, 3, 32, 32])
    """
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, 6, 6, generator=draw)
    smooth = interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    contrast = torch.rand(count, 1, 1, 1, generator=draw) + 0.5
    shade = torch.randn(count, channels, 1, 1, generator=draw) * 0.5
    return smooth * contrast + shade + torch.randn(smooth.shape, generator=draw) * 0.2


def views(source: str, preprocess: Preprocess, count: int, seed: int = 0) -> Tensor:
    """Read images for a model, `(count, C, size, size)`; if there are fewer, further views of them are added.

    The first view of an image is its evaluation crop, the others are random crops (at least 64 % of the area), half of
    them flipped.

    Args:
        source: a path, a folder or a pattern.
        preprocess: the evaluation protocol of the model.
        count: number of views.
        seed: seed of the crops.

    Raises:
        VitrailError: there are no images.
        DataError: an image cannot be read.
    """
    prepare = EvalTransform(preprocess)
    read = (found.read() for found in find_images(source, prepare.mode)[:count])
    whole = prepare.batch(torch.stack([prepare.to_pixels(image) for image in read]))
    draw = torch.Generator().manual_seed(seed)
    more = [_part(whole[i % len(whole)], draw) for i in range(len(whole), count)]
    return torch.cat([whole, *(each[None] for each in more)])


def _part(image: Tensor, draw: torch.Generator) -> Tensor:
    size = image.shape[-1]
    side = max(1, int(size * (0.8 + 0.2 * torch.rand((), generator=draw).item())))
    top, left, mirrored = torch.rand(3, generator=draw).tolist()
    y, x = int(top * (size - side + 1)), int(left * (size - side + 1))
    part = interpolate(image[None, :, y : y + side, x : x + side], (size, size), mode="bilinear", align_corners=False)
    return (part.flip(-1) if mirrored < 0.5 else part)[0]
