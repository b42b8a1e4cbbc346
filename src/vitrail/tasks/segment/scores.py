"""Class scores of images of any size: whole or by sliding windows, and with a mirror image."""

from collections.abc import Callable

import torch
from torch import Tensor

from vitrail.parts.decoders.resize import resize_map

Answer = Callable[[Tensor], Tensor]
"""From images `(B, C, Y, X)` to logits `(B, K, Y, X)`."""

MOST_SCORES = 2**26
"""Scores that are computed at a time: 256 MB in fp32. One image may have more."""


def images_at_once(classes: int, size: tuple[int, int]) -> int:
    """Return how many images of a size are computed together.

    Example:
        >>> images_at_once(11, (360, 480)), images_at_once(150, (2160, 3840))
        (35, 1)
    """
    return max(MOST_SCORES // (classes * size[0] * size[1]), 1)


def window_starts(side: int, window: int, overlap: float) -> list[int]:
    """Return the first pixel of each window along an axis: evenly spaced, the last one ending with the image.

    Example:
        >>> window_starts(10, 4, 0.5), window_starts(4, 4, 0.5), window_starts(3, 4, 0.5)
        ([0, 2, 4, 6], [0], [0])
    """
    if side <= window:
        return [0]
    step = max(int(window * (1 - overlap)), 1)
    count = -(-(side - window) // step) + 1
    return [round(i * (side - window) / (count - 1)) for i in range(count)]


def slide(answer: Answer, images: Tensor, window: int, overlap: float) -> Tensor:
    """Return logits as means over all windows that see a pixel.

    An image smaller than a window is padded with zeros at the right and bottom, so models of one size take it too.

    Args:
        answer: the model.
        images: `(B, C, Y, X)`, normalised.
        window: side of the windows.
        overlap: least share of a window that the next one repeats.

    Example:
        >>> images = torch.randn(1, 2, 9, 7)
        >>> torch.allclose(slide(lambda x: 2 * x, images, 4, 0.5), 2 * images)
        True
    """
    height, width = images.shape[2:]
    pad = max(window - width, 0), max(window - height, 0)
    padded = torch.nn.functional.pad(images, (0, pad[0], 0, pad[1])) if any(pad) else images
    total, seen = None, images.new_zeros(padded.shape[2:])
    for top in window_starts(padded.shape[2], window, overlap):
        for left in window_starts(padded.shape[3], window, overlap):
            logits = answer(padded[..., top : top + window, left : left + window]).float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *padded.shape[2:])
            total[..., top : top + window, left : left + window] += logits
            seen[top : top + window, left : left + window] += 1
    assert total is not None
    return (total / seen)[..., :height, :width]


class ImageScorer:
    """Class scores of images, as options say: whole or by windows, with or without the mirror image.

    Args:
        answer: the model.
        window: side of sliding windows, or 0 for whole images.
        overlap: least share of a window that the next one repeats.
        flip: whether the probabilities of the mirror image are averaged in; the scores are then their logarithms.
    """

    def __init__(self, answer: Answer, window: int = 0, overlap: float = 0.33, flip: bool = False):
        self.answer, self.window, self.overlap, self.flip = answer, window, overlap, flip

    def __call__(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return scores `(B, K, Y, X)` at a size, by default that of the images."""
        scores = self._scores(images)
        if self.flip:
            mirrored = self._scores(images.flip(-1)).flip(-1)
            scores = ((scores.softmax(1) + mirrored.softmax(1)) / 2).clamp_min(1e-12).log()
        return scores if size is None else resize_map(scores, size)

    def _scores(self, images: Tensor) -> Tensor:
        if not self.window:
            return self.answer(images).float()
        return slide(self.answer, images, self.window, self.overlap)
