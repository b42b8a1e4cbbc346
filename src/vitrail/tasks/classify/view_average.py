"""Test-time augmentation: the mean of the class probabilities over views of an image."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_CROP = 0.875


def views(images: Tensor, kinds: Sequence[str]) -> Iterator[Tensor]:
    """Yield the images and their views.

    Args:
        images: `(B, C, Y, X)`.
        kinds: any of `flip` (mirror image, of every view), `vflip` (upside down), `rotate` (by 90, 180 and 270
            degrees) and `crops` (four corners of 7/8 of the side, scaled back).

    Example:
        >>> len(list(views(torch.zeros(1, 3, 8, 8), ["flip", "rotate"])))
        8
    """
    found = [images]
    if "vflip" in kinds:
        found.append(images.flip(-2))
    if "rotate" in kinds:
        found += [images.rot90(turn, (-2, -1)) for turn in (1, 2, 3)]
    if "crops" in kinds:
        found += list(_corners(images))
    for view in found:
        yield view
        if "flip" in kinds:
            yield view.flip(-1)


def averaged(answer: Callable[[Tensor], Tensor], kinds: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """Return a function from images to the logarithm of the mean probability over the views.

    Its softmax is the mean, so it takes the place of logits. Without views it is `answer` itself.
    """
    if not kinds:
        return answer

    def mean_of_views(images: Tensor) -> Tensor:
        total: Tensor | None = None
        for count, view in enumerate(views(images, kinds), start=1):
            probabilities = answer(view).float().softmax(dim=-1)
            total = probabilities if total is None else total + (probabilities - total) / count
        assert total is not None
        return total.clamp_min(torch.finfo(torch.float32).tiny).log()

    return mean_of_views


def _corners(images: Tensor) -> Iterator[Tensor]:
    height, width = images.shape[-2:]
    rows, columns = max(round(height * _CROP), 1), max(round(width * _CROP), 1)
    for top in (0, height - rows):
        for left in (0, width - columns):
            part = images[..., top : top + rows, left : left + columns]
            yield interpolate(part, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
